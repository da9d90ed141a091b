"""Into how many pieces: twice as many whenever memory runs out in the first steps of a training.

A model that every rank has whole goes on at once. Where weights are spread over ranks the others are in the middle of
an exchange with the rank that ran out; there the number is kept in the run folder, and the next start has it.
"""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ....errors import RequestError
from ... import again, group
from ...meeting import write_json
from . import rerun, state, tree
from .watched import Watched

if TYPE_CHECKING:
    from ..engine import Engine

_FIRST_STEPS = 3
_FOLDER = "micro"


class Memory:
    """The number of pieces of this rank."""

    def __init__(self, engine: "Engine", pieces: int) -> None:
        self.engine = engine
        self.folder = engine.me.run / _FOLDER
        self.pieces = self._began = max(pieces, group.agree(self._stored()))
        self.rows = 0
        """That the rank with the fewest has in the batch at hand."""
        self._call: Watched | None = None
        """The one call of a model that was computed whole since the last backward."""
        self._calls = 0
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._undivided = ""
        """The model whose forward makes a number of the batch by hand, called since the last backward."""

    @property
    def watches(self) -> bool:
        """Whether a call that does not fit can still be computed in more pieces; of the self-check none is."""
        return self.engine.meter.step < _FIRST_STEPS and not self.engine.self_check.is_running

    def attempt(self, compute: Callable[[int], Any]) -> Any:
        """The output of *compute*, given the number of pieces; more of them while memory runs out."""
        while True:
            before, exchanged = state.chance(), group.exchanges()
            try:
                return compute(self.pieces)
            except torch.OutOfMemoryError as full:
                error = full
            self._check_alone(error, exchanged)
            error.__traceback__ = None
            state.put_back(before)
            self.filled(error)

    def filled(self, error: torch.OutOfMemoryError) -> None:
        """Memory ran out: take twice as many pieces from now on.

        Raises *error* where there is nothing to halve, and RequestError where the ranks cannot go on.
        """
        if not self.watches or self.pieces >= self.rows:
            raise error
        self.pieces *= 2
        self._keep()
        if self._place.plan.shards:
            raise self._next_time() from error
        self.engine.place = replace(self._place, plan=replace(self._place.plan, micro_batches=self.pieces))
        _free()
        print(
            f"lumi-moai: rank {self.engine.rank} ran out of device memory; it computes its rows in {self.pieces}"
            " micro-batches from now on, as the run's next start will",
            file=sys.__stderr__,  # also where ranks other than 0 are silent
        )

    def begin_backward(self) -> None:
        """A backward of the script begins."""
        grads = [(each, each.grad) for each in self._call.work.parameters] if self._call else []
        self._before = [(each, grad.data.clone()) for each, grad in grads if grad is not None]

    def forget(self) -> None:
        """Whatever was called has gone back by now, or never will."""
        self._before, self._call, self._calls, self._undivided = [], None, 0, ""

    def whole(self, name: str, compute: Callable[[], Any]) -> Any:
        """The output of *compute*, a call of the model *name* that has no pieces.

        Raises RequestError where memory runs out, here or in its backward.
        """
        self._undivided = name
        try:
            return compute()
        except torch.OutOfMemoryError as full:
            raise self._no_pieces() from full

    def watch(self, call: Watched) -> Any:
        """The output of *call*, a call of a model as it is."""
        output = call.compute()
        self._calls += 1
        self._call = call if self._calls == 1 else None
        return output

    def recover(self, outputs: Sequence[torch.Tensor], error: torch.OutOfMemoryError) -> None:
        """Finish the backward from *outputs*, in which memory ran out, in pieces.

        Raises RequestError where the gradients of the model's outputs are not known, so that nothing can be made again.
        """
        if self._undivided:
            raise self._no_pieces() from error
        call = self._call
        grads = call.grads(outputs) if call else None
        if not self.watches or call is None or grads is None or self.pieces > 1:
            self._stop(error)
            return
        call.let_go()
        self.filled(error)
        pieces = tree.halves(call.work.pieces[0])
        again = replace(call.work, pieces=pieces, chances=call.work.chances * 2, on_full=self.filled)
        of_parameters, _ = rerun.back(again, grads)
        kept = {id(parameter): grad for parameter, grad in self._before}
        for parameter, grad in zip(again.parameters, of_parameters, strict=True):
            before = kept.get(id(parameter))
            parameter.grad = grad if before is None else before if grad is None else before + grad

    def _stop(self, error: torch.OutOfMemoryError) -> None:
        if not self.watches or self.pieces >= self.rows:
            raise error
        self.pieces *= 2
        self._keep()
        raise self._next_time() from error

    def _check_alone(self, error: torch.OutOfMemoryError, exchanged: int) -> None:
        """A call in which the ranks exchanged something cannot be made again by one of them."""
        if group.exchanges() != exchanged and self.engine.me.ranks.world_size > 1:
            self._stop(error)

    def _no_pieces(self) -> RequestError:
        return RequestError(
            f"device memory ran out, and the forward of {self._undivided} makes a number of the batch by hand, so that"
            " its rows cannot be computed in micro-batches; take a loss of torch's in there, or the loss outside of the"
            " model, or ask for --layout fsdp,recompute=full or for a larger flavor"
        )

    def _next_time(self) -> RequestError:
        how = "start the run once more, it"
        if again.can_ask() and self.pieces > self._began:  # or the next start gets no further
            again.ask(self.engine.me.run)
            how = "the job asks to be queued again, and"
        return RequestError(
            f"device memory ran out where this step cannot be computed again; {how} will compute"
            f" each rank's rows in {self.pieces} micro-batches"
        )

    @property
    def _place(self) -> Any:
        return self.engine.place

    def _keep(self) -> None:
        self.folder.mkdir(exist_ok=True)
        found = {"micro_batches": self.pieces, "world_size": self.engine.me.ranks.world_size}
        write_json(self.folder / f"rank{self.engine.rank}.json", found)

    def _stored(self) -> int:
        """The most pieces that a rank of an earlier start in this world needed."""
        found = [json.loads(path.read_text()) for path in sorted(self.folder.glob("rank*.json"))]
        mine = [each for each in found if each["world_size"] == self.engine.me.ranks.world_size]
        return max((each["micro_batches"] for each in mine), default=1)


def _free() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
