"""A run in the user's hands: its state, logs, end and report."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import rundir, slurm
from ..errors import RequestError, RunError
from ..rundir import Entry, RunFolder
from .prepare import prepare
from .states import JobState, forget_queue, states, unknown
from .submission import Submitted, submit

_SHORTEST, _LONGEST = 1.0, 30.0
"""Seconds between two looks at a job: doubled from the one to the other, so that waiting costs the site little."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A submitted job. Of an array it speaks for all runs, or for one when `job_id` is `123_4`."""

    job_id: str
    folder: RunFolder
    handle: Any = None
    """submitit's own job, or a list of them for an array of functions; None for a run found by its id."""

    @property
    def states(self) -> list[JobState]:
        """The state of each of its runs, never none: of a run that neither queue nor accounting shows it is unknown."""
        entry = self._entry()
        rows = states([entry]).rows
        mine = [row for row in rows if "_" not in self.job_id or row.job_id in (self.job_id, entry.job_id)]
        return mine or [unknown(entry, self.job_id)]

    @property
    def state(self) -> str:
        """Slurm's word: `PENDING`, `RUNNING`, `COMPLETED`, `FAILED`, ...; of an array the first not completed."""
        return next((row.state for row in self.states if row.state != "COMPLETED"), "COMPLETED")

    def wait(self, *, seconds: float | None = None, tell: Callable[[list[JobState]], None] | None = None) -> str:
        """Wait for the end, at most *seconds*; *tell* is called with the rows after each look.

        Returns the final state. Raises RunError when the time is over first.
        """
        deadline, pause = None if seconds is None else time.monotonic() + seconds, _SHORTEST
        while True:
            rows = self.states
            if tell is not None:
                tell(rows)
            if all(row.ended for row in rows):
                return next((row.state for row in rows if row.state != "COMPLETED"), "COMPLETED")
            if deadline is not None and time.monotonic() > deadline:
                raise RunError(f"job {self.job_id} is still {rows[0].state} after {seconds:g} seconds")
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST)

    def logs(self, rank: int = 0) -> str:
        """The log of *rank* so far, empty when it has written none."""
        path = self.log_file(rank)
        return path.read_text(encoding="utf-8", errors="replace") if path else ""

    def log_file(self, rank: int = 0) -> Path | None:
        """The file that *rank* writes to: its own, or its node's when torchrun started it; None before it started."""
        launch = self.folder.job()["launch"]
        if not 0 <= rank < launch["world_size"]:
            raise RequestError(f"job {self.job_id} has ranks 0 to {launch['world_size'] - 1}, not {rank}")
        torchrun = launch["launcher"] == "torchrun"
        part = f"node{rank // launch['devices_per_node']}" if torchrun else f"rank{rank}"
        if torchrun and launch["nodes"] == 1 and self.job_id.startswith("local"):
            part = "rank0"
        found = sorted(self.folder.logs.glob(f"*-{self.job_id}-{part}.log"))
        return found[0] if found else None

    @property
    def first_failed(self) -> int | None:
        """The rank that failed first, in its last start; None where none did, or none could say so."""
        starts = self.folder.certificates.glob(f"parts/{self.job_id}-r*")
        last = max(starts, key=_began, default=None)
        claim = last / "failed" if last else None
        said = claim.read_text() if claim and claim.is_file() else ""
        return int(said) if said.isdecimal() else None

    def cancel(self) -> None:
        """Cancel it; nothing happens to a run that has ended."""
        entry = self._entry()
        if entry.scheduler == "slurm":
            slurm.scancel([self.job_id])
            forget_queue()
        elif (controller := rundir.controller_of(self.folder)) is not None:
            os.kill(controller, signal.SIGTERM)

    def report(self) -> Any:
        """What it achieved and what it cost; `report.Report`, the value behind `lumi-moai collect`."""
        from ..gather import collect_run

        return collect_run(self.folder, self.job_id)

    def result(self) -> Any:
        """What the submitted function returned on rank 0, for an array a list; waits for the end.

        Raises RunError for a script, which returns nothing, and where others could have written the pickle.
        """
        if not (self.folder.path / "submitit").is_dir() or self.folder.job()["job"]["module"] is False:
            raise RunError(f"job {self.job_id} ran a script, which has no result; read its logs")
        _check_private(self.folder.path)
        self.wait()
        array = isinstance(self.handle, list)
        first = [job.results()[0] for job in (self.handle if array else [self.handle])]
        return first if array else first[0]

    def _entry(self) -> Entry:
        wanted = self.job_id.split("_")[0]
        mine = [e for e in rundir.entries() if e.job_id == wanted and e.folder == os.fspath(self.folder.path)]
        return mine[-1] if mine else rundir.entry_of(self.folder)


def _check_private(path: Path) -> None:
    """Unpickling runs code, so nobody else may be able to write there."""
    facts = path.stat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise RunError(f"{path} can be written by others, so its result is not unpickled; make it yours with chmod 700")


def find_run(word: str) -> Run:
    """The run that *word* means: a job id, or its folder.

    Raises RunError when there is none.
    """
    folder, job_id = rundir.find(word)
    return Run(job_id=job_id, folder=folder)


def from_submission(submitted: Submitted) -> Run:
    """The run that a submission became."""
    return Run(job_id=submitted.job_id, folder=submitted.folder, handle=submitted.handle)


def submit_target(
    target: str | os.PathLike[str] | Callable[..., Any],
    *args: Any,
    name: str | None = None,
    array: str | None = None,
    include: tuple[str, ...] = (),
    **given: Any,
) -> Run:
    """Submit a script with its arguments, or a function with its arguments, and return at once.

    *given* are the settings of the command line by their names: flavor, site, account, partition, time, container,
    launcher, binding, runs, env, sbatch. Raises LumiMoaiError when the job cannot be.
    """
    if callable(target):
        called = name or getattr(target, "__name__", "function").strip("<>")
        prepared = prepare((called,), given, name=called, array=array, include=include, module=True)
        return from_submission(submit(prepared, partial(target, *args)))
    command = (os.fspath(target), *(str(arg) for arg in args))
    return from_submission(submit(prepare(command, given, name=name, array=array, include=include)))


def _began(start: Path) -> float:
    """When the folder of one start got its first note."""
    return min((note.stat().st_mtime for note in start.iterdir()), default=start.stat().st_mtime)


def follow(run: Run, rank: int = 0) -> Iterator[str]:
    """The log of *rank* as it grows, in pieces, until the run has ended.

    Goes on when the file is replaced or cut, and when the job is requeued and waits again.
    """
    from .tail import Tail

    tail, looked, pause, ended = Tail(), -_LONGEST, _SHORTEST, False
    while True:
        path = run.log_file(rank)
        if path is not None and (piece := tail.read(path)):
            pause = _SHORTEST
            yield piece
        elif ended:  # and nothing was written between the last reading and the word of its end
            return
        elif time.monotonic() - looked > pause:
            ended = all(row.ended for row in run.states)
            looked, pause = time.monotonic(), min(pause * 2, _LONGEST)
        else:
            time.sleep(0.2)
