"""The self-check: the first step on a few rows, all ranks together against one device, before training goes on.

Every rank runs the body of the script's loop twice, apart and up to the first backward: with all of the few rows, which
is what one device would compute, and with its own share of them. Loss and gradient norm must agree.

body      the loop's body as code, and what stands against running it
rows      the few rows
samples   the same from their samples, where each rank pads its rows to a width of its own
quiet     no dropout, nothing printed
result    loss and gradient norm
rounding  how far the last digit of the weights moves the step
snapshot  everything put back
words     sentences
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ....errors import RequestError
from ... import accelerator, group
from .. import counts, layout, time_first
from ..at_hand import AtHand
from ..counts import users
from ..share import Share, bounds
from ..single import is_one_number
from . import body, quiet, rounding, rows, samples, words
from .body import Unfit
from .result import DrawsError, EnoughError, FailedError, Result, RowByRowError
from .snapshot import Snapshot, single_numbers

if TYPE_CHECKING:
    from ..engine import Engine

Ready = Callable[[Any], tuple[Callable[[], Any], list[Any]]]
"""What computes a batch, and what may change on the way."""

_TOLERANCE = 1e-3
_TOLERANCE_LOW = 2e-2
"""Relative, where something is computed with 16 bits."""


class SelfCheck:
    """Compares the first step of a training; made once."""

    def __init__(self, engine: "Engine", *, wanted: bool) -> None:
        self.engine = engine
        self.is_due = wanted
        self.is_of_library = False
        """Whether a library's loop makes the check itself, by `check`."""
        self.is_running = False
        self._result: Result | None = None
        self._share: Share | None = None
        self._places: time_first.Places = {}
        """Of the rows of the batch; empty where all tensors have them in their first dimension."""
        self._by_hand: set[int] = set()
        """The tensors of no optimizer that were known before."""
        self._is_low = False
        self._steady = quiet.Steady()
        """What steadies the draws of a step, if it has any."""
        self._is_shown = False
        """Whether the script has seen the batch, so that no other can be handed out in its place."""

    def look(self, batch: Any, share: Share | None) -> None:
        """The script is about to get its first training batch.

        Raises RequestError, on all ranks alike, when the ranks do not compute what one device would.
        """
        place = self.engine.place
        if not self.is_due or self.is_of_library or place is None:
            return
        if share is None and self.engine.micro.memory.pieces == place.plan.pp == 1:
            return
        self.is_due = False
        try:
            found = body.find()
            self._places = self.engine.time_first.places
            self._check(self._runner(found), batch, share)
        except Unfit as reason:
            self.leave_out(str(reason))

    @contextmanager
    def of_library(self) -> Iterator[None]:
        """Within this a library's loop trains, which makes the check itself."""
        before, self.is_of_library = self.is_of_library, True
        try:
            yield
        finally:
            self.is_of_library = before

    def leave_out(self, reason: str) -> None:
        """Say that no check is made, and why."""
        self.is_due = False
        self._say(f"the self-check could not be made: {reason}")

    def check(
        self,
        forward_backward: Callable[[Any], Any],
        batch: Any,
        share: Share | None,
        state: Sequence[Any] = (),
        *,
        is_shown: bool,
    ) -> bool:
        """The same for a training loop of a library: *forward_backward* computes a batch and goes back from its loss.

        *state*: what that may change on the way, put back afterwards. *is_shown*: whether lines of the script have
        seen the batch. It gives whether ranks put whole batches together from this one on. Raises RequestError, on all
        ranks alike, when the ranks do not compute what one device would.
        """
        whole_batches = self.engine.whole_batches.is_on
        place = self.engine.settle()
        if not self.is_due or (share is None and self.engine.micro.memory.pieces == place.plan.pp == 1):
            return False
        self.is_due, self._is_shown, self._places = False, is_shown, self.engine.time_first.places
        try:
            self._check(lambda value: (lambda: forward_backward(value), [*state]), batch, share)
        except Unfit as reason:
            self.leave_out(str(reason))
        return self.engine.whole_batches.is_on and not whole_batches

    def went_back(self, outputs: Sequence[torch.Tensor]) -> None:
        """A backward from *outputs* has ended; while a check runs, this is where it stops."""
        if self.is_running:
            loss, norm = self._value(outputs), self._norm()
            self._result = Result(loss=loss, norm=norm, drawn=single_numbers(), singles=self._steady.counted())
            raise EnoughError

    def saw(self) -> None:
        """A model is called, or a part of one may be; does it compute with 16 bits?"""
        if self.is_running:
            kinds = ("cpu", accelerator.device().type)
            self._is_low = self._is_low or any(torch.is_autocast_enabled(kind) for kind in kinds)

    def _turned(self, batch: Any) -> Any:
        return time_first.turned(batch, self._places)

    def _few(self, batch: Any, share: Share | None, *, of_rank_0: bool = False) -> rows.Few:
        """Some rows of *batch*, in the dimension where they are."""
        place, turned = self.engine.settle(), self._turned(batch)
        if of_rank_0 and share is not None:
            found = rows.of_rank_0(turned, share, place.data_rank)
        else:
            found = rows.few(turned, share, place.data_rank, place.data_group)
        return replace(found, whole=self._turned(found.whole), mine=self._turned(found.mine))

    def _anew(self, batch: Any, share: Share, turned: samples.Turned | None) -> rows.Few:
        place = self.engine.settle()
        with self.engine.unjournaled():
            few = samples.anew(batch, share, place.data_rank, place.data_group, turned)
        return self.engine.whole_batches.widths.of_few(few, self._places)

    def _runner(self, found: body.Body) -> Ready:
        def ready(value: Any) -> tuple[Callable[[], Any], list[Any]]:
            item = (0, value) if found.is_numbered else value
            names = {**found.names, body.VALUE: [item], body.STOP: EnoughError}
            return lambda: exec(found.code, names), [*found.names.values()]  # noqa: S102

        return ready

    def _check(self, ready: Ready, batch: Any, share: Share | None) -> None:
        if share is None:
            said = self._of_rows(ready, self._few(batch, share))
        elif time_first.lists_of_rows(batch, self._places) or not self._is_on_all(
            rows.can_be_told(self._turned(batch))
        ):
            said = self._of_rows(ready, self._anew(batch, share, None))
        else:
            try:
                said = self._of_widths(ready, batch, share)
            except Unfit as reason:
                said = self._as_it_is(ready, batch, share, reason)
        self._say(f"self-check of the first step: {said}")

    def _as_it_is(self, ready: Ready, batch: Any, share: Share, reason: Unfit) -> str:
        """The numbers of a few rows of *batch*; *reason* says why rows of different widths could not be compared."""
        try:
            return self._of_rows(ready, self._few(batch, share))
        except rows.WidthsError:
            said = self._of_rows(ready, self._few(batch, share, of_rank_0=True))
            return f"{said}; rows of different widths could not be compared: {reason}"

    def _of_rows(self, ready: Ready, few: rows.Few) -> str:
        """The numbers of *few* rows.

        Raises RequestError when they differ.
        """
        try:
            return self._steadily(ready, few)[0]
        except FailedError as failed:
            raise RequestError(f"{failed}{failed.reasons}") from None

    def _of_widths(self, ready: Ready, batch: Any, share: Share) -> str:
        """The numbers of a few rows that each rank has padded to a width of its own.

        Raises RequestError when they differ, by the widths or by something else, and Unfit when there are none.
        """
        few = self._anew(batch, share, self._turned)
        try:
            said, alike = self._steadily(ready, few)
        except FailedError as failed:
            if in_whole := self._in_whole_batches(ready, few):
                return in_whole
            with suppress(Unfit):  # where that is all there is to compare
                self._of_rows(ready, self._few(batch, share, of_rank_0=True))
            raise RequestError(f"{failed}{words.WIDTHS}") from None
        if not alike and self._is_in_one_piece() and self._draws_alike_at_one_width(ready, batch, share):
            if in_whole := self._in_whole_batches(ready, few):
                return in_whole
            raise RequestError(f"the self-check of the first step failed: {said}{words.DRAWN}{words.WIDTHS}")
        return said

    def _in_whole_batches(self, ready: Ready, few: rows.Few) -> str:
        """The numbers where ranks take their rows from whole batches, as they do then; empty where that is no help."""
        if (self._is_shown and not self.engine.whole_batches.is_on) or few.is_drawn or few.share is None:
            return ""
        whole = self._turned(few.whole)
        start, end, _ = bounds(few.share.total, self.engine.settle().data_rank, few.share.ranks)
        try:
            said, is_alike = self._steadily(ready, replace(few, mine=self._turned(rows.taken(whole, start, end))))
        except (FailedError, Unfit):
            return ""
        if not is_alike:
            return ""
        self.engine.whole_batches.take(words.IN_WHOLE)
        return f"{said}; {words.IN_WHOLE}"

    def _draws_alike_at_one_width(self, ready: Ready, batch: Any, share: Share) -> bool:
        with suppress(Unfit):  # where it cannot be told apart from numbers for row after row, which differ as well
            return self._steadily(ready, self._few(batch, share, of_rank_0=True))[1]
        return True

    def _steadily(self, ready: Ready, few: rows.Few) -> tuple[str, bool]:
        try:
            return self._compare(ready, few)
        except DrawsError:
            self._steady = quiet.Steady()
            with torch.compiler.set_stance("force_eager"), self._steady:  # which the compiler does not look beneath
                return self._compare(ready, few)

    def _compare(self, ready: Ready, few: rows.Few) -> tuple[str, bool]:
        """The numbers of one device and the ranks, and whether both drew as many of `random` and numpy.

        Raises FailedError when the numbers differ.
        """
        pieces, share = self.engine.micro.memory.pieces, few.share
        self._by_hand = set(map(id, self.engine.gradients.by_hand.found))
        alone = self._run_alone(ready, few)
        part = rows.fresh(few.mine)
        if share is not None and not self.is_of_library:
            part = counts.mark(part, share, self._places)
        together = self._run(*ready(part), share=share, rows_here=few.sizes[1], pieces=pieces)
        is_alike = self._is_on_all(alone.drawn == together.drawn)
        is_by_row = not self._is_on_all(alone.singles == together.singles) and self._is_in_one_piece()
        alone, together = group.agree((alone, together))
        numbers = f"loss {alone.loss:.7g} on one device and {together.loss:.7g} {self._where(share)}"
        numbers += f", gradient norm {alone.norm:.7g} and {together.norm:.7g}"
        if is_by_row:
            raise RowByRowError(f"the self-check of the first step failed: {numbers}")
        tolerance = self._tolerance()
        if not alone.agrees(together, tolerance, tolerance):
            moved = self._moved(ready, few)
            if not alone.agrees(together, *(rounding.allowed(each, tolerance) for each in moved)):
                raise FailedError(f"the self-check of the first step failed: {numbers}")
            numbers += "; the last digit of the weights alone moves them by {:.2%} and {:.2%}".format(*moved)
        return numbers, is_alike

    def _is_in_one_piece(self) -> bool:
        return self.engine.micro.memory.pieces == self.engine.settle().plan.pp == 1

    def _is_on_all(self, here: bool) -> bool:
        everywhere: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everywhere, here)
        return all(everywhere)

    def _where(self, share: Share | None) -> str:
        place, pieces = self.engine.place, self.engine.micro.memory.pieces
        stages = place.plan.pp if place else 1
        ranks = [f"on {place.data_ranks} ranks"] if place and share and share.ranks > 1 else []
        cut = [f"in {stages} stages"] if stages > 1 else [] if ranks else [f"in {pieces} micro-batches"]
        return ", ".join([*ranks, *cut])

    def _run_alone(self, ready: Ready, few: rows.Few) -> Result:
        return self._run(*ready(rows.fresh(few.whole)), share=None, rows_here=few.sizes[0], pieces=1, alone=True)

    def _moved(self, ready: Ready, few: rows.Few) -> tuple[float, float]:
        """How far, relative, a last digit of the weights moves one device's loss and gradient norm.

        From what they are now: if the step has changed since it was compared, such as by a graph that torch.compile
        made meanwhile, that is no rounding.
        """
        found = [self._run_alone(ready, few)]
        for seed in range(rounding.TRIES):
            with rounding.changed(self.engine.gradients.parameters, rounding.nudge, seed):
                found.append(self._run_alone(ready, few))
        losses, norms = [each.loss for each in found], [each.norm for each in found]
        return tuple(group.agree((rounding.spread(losses), rounding.spread(norms))))

    def _tolerance(self) -> float:
        plan = self.engine.place.plan if self.engine.place else None
        small = any(each.dtype.itemsize < 4 for each in self.engine.gradients.parameters)
        return _TOLERANCE_LOW if self._is_low or small or (plan and plan.precision == "bf16") else _TOLERANCE

    def _run(
        self,
        step: Callable[[], Any],
        names: list[Any],
        *,
        share: Share | None,
        rows_here: int,
        pieces: int,
        alone: bool = False,
    ) -> Result:
        """What *step* computes up to its first backward; nothing of it stays.

        Raises Unfit, on all ranks alike, when it does not get there.
        """
        models = list(self.engine.models())
        before = Snapshot([*map(vars, users.modules()), *names], models)
        self._result, self._share, reason = None, share, "the loop's first turn has no backward"
        try:
            with self._apart(share, rows_here, pieces), self.engine.stages.apart(alone=alone), quiet.silent(models):
                step()
        except EnoughError:
            reason = words.DRAWS if before.draws() else ""
        except RequestError:
            raise
        except Unfit as unfit:
            reason = str(unfit)
        except Exception as error:  # BLE001, on purpose: the script's own code may raise anything
            reason = body.why(error, in_parts=self.engine.settle().plan.dp_shard > 1)
        finally:
            before.put_back()
        self._agree_on(reason)
        if self._result is None:
            raise Unfit(reason)
        return self._result

    def _agree_on(self, reason: str) -> None:
        reasons: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(reasons, reason)
        for each in reasons:
            if each:
                raise (DrawsError if each == words.DRAWS else Unfit)(each)

    @contextmanager
    def _apart(self, share: Share | None, rows_here: int, pieces: int) -> Iterator[None]:
        """The engine at a batch of its own; afterwards it is where it was."""
        engine, micro = self.engine, self.engine.micro
        parameters = {id(each): each for each in map(layout.now, self._parameters())}.values()
        grads = [(each, each.grad) for each in parameters]
        before = (engine.at_hand, engine.in_training, micro.rows, micro.memory.pieces)
        resume = engine.resume
        engine.at_hand = AtHand(lambda: True)
        engine.at_hand.begin(share)
        micro.rows, micro.memory.pieces = rows_here, pieces
        self.is_running, engine.resume = True, None  # what is read apart is no part of the journal
        for parameter, _ in grads:
            parameter.grad = None
        try:
            yield
        finally:
            self.is_running = False
            engine.at_hand, engine.in_training, micro.rows, micro.memory.pieces = before
            engine.resume = resume
            for parameter, grad in grads:
                parameter.grad = grad

    def _parameters(self) -> list[torch.Tensor]:
        mine = [each for model in self.engine.models() for each in model.parameters()]
        return [*mine, *self.engine.gradients.parameters]

    def _value(self, outputs: Sequence[torch.Tensor]) -> float:
        """The global value of what backward began from."""
        with torch.no_grad():
            value = torch.stack([each.double().sum() for each in outputs]).sum()
        if self._share is not None and not all(is_one_number(each, self._share) for each in outputs):
            value = group.total(value if self._share.rows else torch.zeros_like(value))
        return float(value)

    def _norm(self) -> float:
        unique = {id(each): each for each in map(layout.now, self.engine.gradients.parameters)}
        # A leaf that the step makes anew, such as the edge of a domain, is found with rows that are shared out only.
        for key in set(map(id, self.engine.gradients.by_hand.found)) - self._by_hand:
            unique.pop(key, None)
        squares = 0.0
        for parameter in unique.values():
            if parameter.grad is not None:
                squares += float(layout.full_state(parameter.grad).double().square().sum())
        return math.sqrt(squares)

    def _say(self, sentence: str) -> None:
        self.engine.say_once("self-check", sentence)
