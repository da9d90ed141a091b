"""One rank's part in checkpoints: it keeps the journal and saves, or it repeats the steps up to a checkpoint."""

import gc
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import nn
from torch.amp.grad_scaler import OptState
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ....errors import RequestError
from ... import accelerator, again, alarm, group
from ...output import Counted
from .. import roots
from ..files import together
from . import chance, closures, folder, reads, sharded, state
from .forwards import Forwards
from .held import Held, form
from .journal import Journal
from .replay import Replay
from .saver import Saver

if TYPE_CHECKING:
    from ..engine import Engine

AGAIN = 75
"""Exit code of a job that has saved ahead of its time limit and wants to be queued again (`EX_TEMPFAIL`)."""
_LEFT_OUT = "step that a GradScaler left out"


class Resume:
    """Set up when the script's one line runs; all ranks do the same, at the same steps."""

    def __init__(self, engine: "Engine") -> None:
        self.engine = engine
        self.place = engine.me.checkpoints
        self.journal = Journal()
        self.replay: Replay | None = None
        """While the steps up to a checkpoint are repeated."""
        self._leave: Callable[[], None] = lambda: None
        self.forwards = Forwards()
        self.held = Held(engine)
        self.is_paused = 0
        """Reads are not the script's while a model, a backward or an optimizer runs."""
        self.steps = 0
        self.began_at = 0
        """The step at which this start went on."""
        wishes = engine.me.wishes
        self.saver = Saver(self.place, engine.rank, wishes.checkpoint, wishes.keep, alarm.time_is_short)
        self._started = self._born = time.time()
        self._saved = self._born
        """When the checkpoint was saved that this start went on from."""
        self._loaded: dict[str, float] = {}
        """Files that the script has loaded in this start, and when they were written."""
        self._gradients_stay = False
        self._has_stepped = False
        self._looks = 8
        self._why: str | None = None
        """Why a checkpoint is to be written, while it waits for the end of a batch."""
        self._code = ""
        self._first: dict[str, list[int]] = {}
        """The weights at the script's first step, by name, and their shapes."""

    def begin(self) -> None:
        """Look for a checkpoint; all ranks call this together, once."""
        rank = self.engine.rank
        self._code = group.agree(folder.code(self.engine.me.run))
        found = group.agree(self._newest() if rank == 0 else None)
        if isinstance(found, str):
            raise RequestError(found)
        if found is not None:
            self._repeat(found)
        for stream in self._streams():
            stream.begin(self.place / "printed", is_repeating=self.replay is not None)

    def _streams(self) -> list[Counted]:
        return [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, Counted)]

    def _newest(self) -> Path | str | None:
        """The checkpoint to go on from, or the sentence why none may be used."""
        try:
            path, remarks = folder.newest(self.place)
        except RequestError as error:
            return str(error)
        for remark in remarks:
            self.engine.say_once(remark, remark)
        return path

    def _repeat(self, path: Path) -> None:
        facts = folder.read_facts(path)
        if facts["code"] != self._code:
            raise RequestError(
                f"the checkpoint {path} was made by another script, or by this one with other arguments; restart what"
                " made it, or start anew with --checkpoint off"
            )
        self._started, self._loaded, self._first = facts["started"], facts["loaded"], facts["first"]
        self._saved = facts["saved"]
        self.journal = Journal.load((path / "journal").read_bytes())
        self.replay = Replay(path, facts, self.journal)
        self.engine.say_once("resume", f"a checkpoint of step {facts['step']} is there; repeating the steps up to it")

    def sketch(self, root: nn.Module) -> None:
        """*root* is about to be laid out over the ranks."""
        if self.replay is not None:
            self.replay.imagination.sketch(root)

    def optimizers(self) -> list[Optimizer]:
        """The optimizers of the script that are alive, in the order of their birth."""
        return self.engine.seen.living_optimizers()

    def caller(self, root: nn.Module, call: roots.Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One call of a model."""
        if self.replay is not None:
            return self.replay.call(root, args, kwargs, self.engine.at_hand.share)
        return self.quietly(call, *args, **kwargs)

    def quietly(self, call: roots.Call, *args: Any, **kwargs: Any) -> Any:
        """*call*, whose reads are not repeated and so not noted."""
        self.is_paused += 1
        try:
            return call(*args, **kwargs)
        finally:
            self.is_paused -= 1

    def stepper(self, optimizer: Optimizer, call: roots.Call, args: tuple, kwargs: dict[str, Any]) -> Any:
        """One step of an optimizer."""
        number = next(place for place, each in enumerate(self.optimizers()) if each is optimizer)
        closure = closures.given(args, kwargs)
        if self.replay is not None:
            if self.steps == 0:
                self.replay.check_models(state.describe(self.held.models()), self._first)
            result = closures.repeat(closure, str(number), self.journal) if closure is not None else None
            self.held.returned = result
            self.journal.take("step of optimizer", str(number))
            self.engine.meter.repeated(optimizer)
            self.steps += 1
            if self.steps == self.replay.step:
                self._go_on(self.replay)
            return result
        self._first = self._first or state.describe(self.held.models())
        if closure is not None and self.engine.resume is self:  # the self-check goes no further than a backward
            args, kwargs = (closures.noting(closure, str(number), self.journal, self._reading),), {}
        result = self.held.returned = self.quietly(call, *args, **kwargs)
        self.journal.note("step of optimizer", str(number))
        self.steps += 1
        self._has_stepped = True
        self._after_step()
        return result

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Within this reads are the script's again, in what it gave to an optimizer."""
        before, self.is_paused = self.is_paused, 0
        try:
            yield
        finally:
            self.is_paused = before

    def _after_step(self) -> None:
        why = self.saver.after_step()
        self._why = "short" if "short" in (why, self._why) else why or self._why
        if self._why is None or self.forwards.must_wait(self.saver.group):
            return
        why, self._why = self._why, None
        if why == "due":
            self.save()
        elif self.saver.saved != self.steps:
            self._last()

    def _last(self) -> None:
        """The time limit is near: save, and leave the rest to the next start where there will be one."""
        self.save()
        self.saver.wait()
        self.saver.is_short = lambda: False
        self.engine.say_once("short", f"saved at step {self.steps}, because the time limit is near")
        if not again.can_ask():
            return
        if self.engine.rank == 0:
            again.ask(self.engine.me.run)  # after a step that no earlier start has reached
        self.engine.say_once("again", "the job asks to be queued again, and will go on from there")
        self.saver.wait()
        sys.exit(AGAIN)

    def save(self) -> None:
        """Write a checkpoint of this step; training goes on meanwhile."""
        began = time.monotonic()
        optimizers = self.optimizers()
        tensors, rest = state.optimizer_states(optimizers)
        weights = state.weights(self.held.models())
        held, self._gradients_stay = self.held.stored(weights, self.saver.group, gradients_stay=self._gradients_stay)
        facts = {
            "step": self.steps,
            "code": self._code,
            "first": self._first,
            "models": {name: list(tensor.shape) for name, tensor in weights.items()},
            "optimizer_rest": rest,
            "optimizer_groups": [state.groups_of(optimizer) for optimizer in optimizers],
            "scalers": [scaler.state_dict() for scaler in self.engine.seen.scalers()],
            "printed": [stream.count for stream in self._streams()],
            "started": self._started,
            "saved": time.time(),
            "loaded": self._loaded,
            "world_size": self.engine.me.ranks.world_size,
            "held": {name: [*form(tensor)] for name, tensor in held.items()},
        }
        tensors |= weights | held | {f"chance.{self.engine.rank}": chance.packed()}
        if self._gradients_stay:
            tensors |= state.gradients(self.held.models())
        self.saver.save(self.steps, tensors, facts, self.journal.dump() if self.engine.rank == 0 else b"")
        self.saver.stall = time.monotonic() - began
        self.engine.say_once(
            "saving", f"first checkpoint at step {self.steps}; training waited {self.saver.stall:.2f} s for it"
        )

    def _go_on(self, replay: Replay) -> None:
        """The step of the checkpoint is reached: load it; from here on all is real."""
        gc.collect()  # models that the script has let go of are not in the checkpoint
        replay.check_models(state.describe(self.held.models()), replay.facts["models"])
        self.replay, self._leave = None, replay.leave
        replay.end()
        for scaler, words in zip(self.engine.seen.scalers(), replay.facts["scalers"], strict=True):
            scaler.load_state_dict(words)
        state.load(replay.path, self.held.models(), self.optimizers(), replay.facts, self.saver.group)
        replay.give_values(self.held.found(), self.saver.group, self.held.own_rows)
        self._restore_chance(replay)
        self.steps = self.began_at = self.saver.saved = replay.step
        for stream, count in zip(self._streams(), replay.facts["printed"], strict=False):
            stream.go_on(count)
        self.engine.say_once("resumed", f"resumed at step {self.steps}")

    def _restore_chance(self, replay: Replay) -> None:
        stored = sharded.kinds(replay.path)
        mine = f"chance.{self.engine.rank}"
        is_mine = mine in stored and replay.facts["world_size"] == self.engine.me.ranks.world_size
        name = mine if is_mine else "chance.0"
        room = torch.zeros(stored[name].size, dtype=torch.uint8)
        sharded.read(replay.path, {name: room}, self.saver.group)
        *shared, device = chance.unpacked(room)
        chance.restore(shared)
        if is_mine:
            chance.restore_device(device)

    def loop(self, generators: Sequence[torch.Generator], agree: Any) -> None:
        """A loop over a DataLoader begins: the random numbers of that moment are rank 0's, or the journal's."""
        if self.replay is not None:
            chance.restore(self.journal.take("loop over a DataLoader").values, generators)
            return
        agree(generators)
        self.journal.note("loop over a DataLoader", "", "t:", chance.states(generators))

    def batch(self, share: Any) -> None:
        """The script gets a batch to train on."""
        mark = (share.fingerprint or share.total) if share is not None else 0
        if self.replay is not None:
            event = self.journal.take("batch of a DataLoader")
            # One rank alone cuts no batches and knows no fingerprints.
            if event.values[0] != mark and event.values[0] and mark:
                raise RequestError(
                    f"a DataLoader gave another batch after step {self.steps} than before the restart, so the"
                    " run cannot go on from its checkpoint; let its order depend on the random seeds of torch, Python"
                    " or numpy alone, or submit with --checkpoint off"
                )
        else:
            self._leave()
            self.journal.note("batch of a DataLoader", "", "i:", (mark,))

    def read(self, what: str, where: str, own: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The script reads numbers from *tensor*, which *own* does."""
        if self.replay is not None:
            event, rows = self.journal.take(what, where), self.engine.at_hand.rows
            return self.quietly(reads.give_back, event, rows, tensor, own, *args, **kwargs)
        value = self.quietly(own, tensor, *args, **kwargs)
        reads.keep(self.journal, what, where, value)
        return value

    def settled(self) -> None:
        """The models are laid out over the ranks."""
        if self.replay is not None:
            self.replay.begin_training(state.weights(self.held.models()).values())

    def backward(self) -> bool:
        """A backward begins; whether it is one that is not computed again."""
        if self.replay is not None:
            self.engine.settle()
            self.replay.backward(self.engine.seen.trained())
            return True
        if self._has_stepped:
            self._has_stepped = False
            self._look_at_gradients()
        return False

    def _look_at_gradients(self) -> None:
        """Whether the script keeps gradients from one step to the next; looked at in the first steps."""
        if self._gradients_stay or self._looks == 0:
            return
        grads = [parameter.grad for parameter in self.engine.seen.trained() if parameter.grad is not None]
        if grads:
            self._looks -= 1
            locals_ = (grad.to_local() if isinstance(grad, DTensor) else grad for grad in grads)
            self._gradients_stay = any(bool(grad.any()) for grad in locals_)

    def is_repeating_scaled(self) -> bool:
        """Whether a GradScaler has nothing to do."""
        return self.replay is not None

    def scaled_step(self, own: Any, optimizer: Optimizer, args: tuple, kwargs: dict[str, Any]) -> Any:
        """`GradScaler.step`, which leaves out a step whose gradients overflowed."""
        before = self.steps
        if self.replay is None:
            result = own(optimizer, *args, **kwargs)
            if self.steps == before:
                self.journal.note(_LEFT_OUT)
            return result
        event = self.journal.peek()
        if event is not None and event.what == _LEFT_OUT:
            self.journal.take(_LEFT_OUT)
            return None
        result = optimizer.step(*args, **kwargs)
        if self.replay is None:  # the checkpoint is of this step: the scaler must know that it was taken
            found = own.args[0]._per_optimizer_states[id(optimizer)]
            found["stage"] = OptState.STEPPED
            found["found_inf_per_device"] = {accelerator.device(): torch.zeros((), device=accelerator.device())}
        return result

    def loads(self, path: str) -> None:
        """The script loads the file at *path*; one that it saved before the restart means that it resumes itself."""
        if together.is_alone():
            return
        written = os.path.getmtime(path)
        if self.replay is None:
            self._loaded[path] = written
            return
        facts = self.replay.facts
        is_new = written >= facts["started"] and facts["loaded"].get(path) != written
        if is_new and self.steps == 0:
            self.engine.say_once("own", f"the script goes on from its own file {path}, not from our checkpoint")
            self._start_anew(self.replay)

    def is_left_over(self, path: str) -> bool:
        """Whether an earlier start wrote the file at *path* in a step behind its checkpoint, which comes once more."""
        return os.path.exists(path) and self._saved < os.path.getmtime(path) < self._born

    def _start_anew(self, replay: Replay) -> None:
        """Leave the checkpoints of earlier starts: their steps are counted from another beginning."""
        self.replay, self.journal, self._first = None, Journal(), {}
        replay.end()
        replay.leave()
        for stream in self._streams():
            stream.begin(self.place / "printed", is_repeating=False)
        dist.barrier(self.saver.group)
        if self.engine.rank == 0:
            for path in folder.found(self.place):
                shutil.rmtree(path, ignore_errors=True)

    def value(self, what: str, compute: Any, form: str = "f:") -> Any:
        """A number, or a text (`t:`), that is told to the script, such as a GradScaler's scale."""
        if self.replay is not None:
            return self.journal.take(what).values[0]
        found = compute()
        self.journal.note(what, "", form, (found,))
        return found

    def finish(self) -> None:
        """The script has ended well.

        Raises RequestError when it never came to the step of the checkpoint.
        """
        if self.replay is not None:
            raise RequestError(
                f"the script ended after {self.steps} steps, and its checkpoint is of step {self.replay.step}; the data"
                " must be what they were, or start anew with --checkpoint off"
            )
        self.saver.settle()
