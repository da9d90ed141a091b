"""Writes checkpoints while training goes on; training waits only until the tensors are copied to the host."""

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from . import folder, interval, sharded
from .state import bare


class Saver:
    """The checkpoints of one rank. The ranks agree on the step one step ahead, so that nobody waits for the answer."""

    def __init__(self, place: Path, rank: int, wish: str | float, keep: int, is_short: Callable[[], bool]) -> None:
        self.place = place
        self.rank = rank
        self.wish = wish
        self.keep = keep
        self.is_short = is_short
        """Whether the time limit is near."""
        self.group = dist.new_group(backend="gloo")
        # A group of its own for the thread that writes: in one, the order of what two threads ask of the others would
        # differ from rank to rank, and all would wait for ever.
        self._writers = dist.new_group(backend="gloo")
        self.stall: float | None = None
        """Seconds that training last waited."""
        self.written: float | None = None
        """Seconds until the files were there."""
        self.saved = 0
        """The last step that was saved."""
        self._began = self._since = time.monotonic()
        self._question: tuple[torch.Tensor, dist.Work] | None = None
        self._next_question = 1
        self._steps = 0
        self._future: Future | None = None
        self._done = threading.Event()
        self._done.set()

    def after_step(self) -> str | None:
        """To be called after each optimizer step: why a checkpoint is to be written now (`due`, `short`), if any."""
        self._steps += 1
        if self._question is None:
            if self._steps >= self._next_question:
                self._ask()
            return None
        answer, work = self._question
        work.wait()
        due, short, every = answer.tolist()
        self._question, self._next_question = None, self._steps + every
        return "short" if short else "due" if due else None

    def _ask(self) -> None:
        """Rank 0 knows the time; any rank may have heard the signal first."""
        now = time.monotonic()
        between = interval.seconds_between(self.wish, self.stall, self.written)
        is_due = self.rank == 0 and self._done.is_set() and now - self._since >= between
        every = interval.steps_between_questions((now - self._began) / self._steps) if self.rank == 0 else 0
        if isinstance(self.wish, (int, float)):
            every = min(every, max(1, int(self.wish * self._steps / (now - self._began) / 4)))
        answer = torch.tensor([is_due, self.is_short(), every])
        self._question = answer, dist.all_reduce(answer, dist.ReduceOp.MAX, group=self.group, async_op=True)

    def save(self, step: int, tensors: dict[str, torch.Tensor], facts: dict[str, Any], journal: bytes) -> None:
        """Begin to write the checkpoint of *step*; all ranks must call this together."""
        began = time.monotonic()
        self._wait_for_last()
        path = folder.partial(self.place, step)
        if self.rank == 0:
            folder.make(self.place, step)
            (path / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
            (path / "journal").write_bytes(journal)
        dist.barrier(self.group)
        self._done.clear()
        self._future = sharded.write(path, _staged(tensors), self._writers)
        self._future.add_done_callback(lambda future: self._finish(path, future, began))
        self.saved = step
        self._since = time.monotonic()
        self.stall = self._since - began

    def _wait_for_last(self) -> None:
        self._done.wait()
        if self._future is not None and not self._future.done():
            self._future.exception()

    def _finish(self, path: Path, future: Any, began: float) -> None:
        """In the writing thread: rank 0 gives the checkpoint its name, which only a whole one gets."""
        try:
            future.result()
            if self.rank == 0:
                folder.complete(path, self.keep)
            self.written = time.monotonic() - began
        except sharded.failures() as error:
            shutil.rmtree(path, ignore_errors=True)
            if self.rank == 0:
                reason = str(error).splitlines()[0]
                print(f"lumi-moai: checkpoint {path.stem} could not be written ({reason}); going on", file=sys.stderr)
        finally:
            self._done.set()

    def wait(self) -> None:
        """Until what was begun is written, on all ranks."""
        self._wait_for_last()
        dist.barrier(self.group)

    def settle(self) -> None:
        """Take back a question that nobody will answer, before the ranks part."""
        if self._question is not None:
            self._question[1].wait()
            self._question = None
        self._wait_for_last()


def _staged(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies of those that live on the host already, which training would change while they are written."""
    return {name: bare(tensor, _kept) for name, tensor in tensors.items()}


def _kept(local: torch.Tensor) -> torch.Tensor:
    return local.clone() if local.device.type == "cpu" else local
