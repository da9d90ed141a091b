"""`python -m lumi_moai.monitor.record TASK`: looks at one node every few seconds while a run runs, and writes it down.

A process of its own beside the ranks, started by the first one of each node: a vendor's library that hangs or crashes
then hangs or crashes alone, and what the script forks has no thread of ours in it. It ends with the rank. Nothing here
may stop or slow a run: what cannot be read or written is said in one sentence in the log, once, and is then left out.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from ..errors import LumiMoaiError
from ..samples.line import Line, format_line
from .job import READERS, given
from .processes import Ranks
from .sample import MIB, Look

MOST_BYTES = 8 << 20
"""Of one node's file, over all starts of a job: some 20,000 looks at eight devices."""
_FIRST_SECONDS = 1.0
"""Until the second look; doubled from look to look up to what was asked for, so that a short run has some too."""
_LOOKS = 2000
"""Of a run that has lasted this many intervals the looks get rarer: 5.6 hours at 10 s, then 7,200 in three days."""
_SHARE = 0.05
"""Of one core's time that looking may take: what it computes, not how long it waits for a core that others have."""
_TRIES = 3
_ALIVE_SECONDS = 0.5
_DEAR = ("rocm-smi",)
"""Sources that are programs, to be started for each look; asked after the libraries."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What to look at, and where to write it."""

    file: Path
    node: str
    start: str
    seconds: float
    sources: tuple[str, ...] = ()
    devices: int = 0
    """Of this node, given to the job."""
    per_package: int = 1
    pids: tuple[int, ...] = ()
    """The node's ranks, in their order."""
    parent: int = 0
    """The rank that started this."""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The task that the runtime wrote."""
        lists = {key: tuple(data[key]) for key in ("sources", "pids")}
        return cls(**{**data, **lists, "file": Path(data["file"])})


def main(words: Sequence[str]) -> None:
    """Record until the rank has ended."""
    sys.excepthook = lambda _, error, __: _say(f"samples are no longer recorded: {type(error).__name__}: {error}")
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):  # Slurm sends the signal ahead of the time limit to every process
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    with suppress(OSError):
        os.nice(19)
    record(Task.from_json(json.loads(words[0])))


def record(task: Task) -> None:
    """Look and write, look and write, until the rank has ended or the file takes no more."""
    devices, ranks = Devices(task), Ranks(task.pids)
    began, pause = time.monotonic(), _FIRST_SECONDS
    while _lives(task):
        before = _computed()
        if not append(task.file, format_line(look(task, devices, ranks))):
            return
        lasted = time.monotonic() - began
        _sleep(task, max(min(pause, task.seconds), lasted / _LOOKS, (_computed() - before) / _SHARE))
        pause *= 2


def _computed() -> float:
    """Seconds of a core that this process and the programs that it started have taken."""
    return sum(os.times()[:4])


def _lives(task: Task) -> bool:
    return os.getppid() == task.parent


def _sleep(task: Task, seconds: float) -> None:
    end = time.monotonic() + seconds
    while _lives(task) and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _ALIVE_SECONDS))


class Devices:
    """The devices of this node, by the first source that answers; given up after some failures in a row."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._open = sorted((name for name in task.sources if name in READERS), key=lambda name: name in _DEAR)
        self._answered: str | None = None
        self._failures = 0

    def look(self) -> tuple[str | None, Look]:
        """The source and what it shows; no source where none answers."""
        refusals = []
        for source in self._open:
            try:
                seen = given(READERS[source](self._task.node), os.environ, self._task.devices)
            except (LumiMoaiError, OSError) as error:
                refusals.append(f"{source}: {str(error).splitlines()[0]}")
                continue
            self._open, self._answered, self._failures = [source], source, 0
            return source, seen
        self._count(refusals)
        return None, Look()

    def _count(self, refusals: Sequence[str]) -> None:
        self._failures += 1
        if refusals and (self._answered is None or self._failures >= _TRIES):
            self._open = []
            if "processes" not in self._task.sources:
                _say(f"no values of the devices of {self._task.node} are recorded from here on ({'; '.join(refusals)})")


def look(task: Task, devices: Devices, ranks: Ranks) -> Line:
    """One look at this node; where no source shows devices, and the ranks may stand for them, at the ranks."""
    source, seen = devices.look()
    own = ranks.look(task.node)
    if source is None and "processes" in task.sources:
        source, seen = "processes", own
    held = [sample.memory_used_mib for sample in own.samples if sample.memory_used_mib is not None]
    host = _memory()
    name, size = _log()
    return Line(
        time=time.time(),
        node=task.node,
        start=task.start,
        source=source,
        devices=tuple(sample.device for sample in seen.samples),
        per_package=task.per_package,
        memory_used_mib=tuple(sample.memory_used_mib for sample in seen.samples),
        memory_total_mib=tuple(sample.memory_total_mib for sample in seen.samples),
        utilisation_percent=tuple(sample.utilisation_percent for sample in seen.samples),
        power_watts=tuple(sample.power_watts for sample in seen.samples),
        host_used_mib=host.get("MemTotal", 0) - host["MemAvailable"] if "MemAvailable" in host else None,
        host_total_mib=host.get("MemTotal"),
        load=os.getloadavg()[0],
        ranks_mib=sum(held) if held else None,
        log=name,
        log_bytes=size,
    )


def _memory() -> dict[str, float]:
    """The lines of `/proc/meminfo`, in MiB; empty where there is none."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {words[0].rstrip(":"): float(words[1]) * 1024 / MIB for words in pairs if words[-1:] == ["kB"]}


def _log() -> tuple[str | None, int | None]:
    """Name and size of the file that this process, like the rank, has as stderr; None where it is no file."""
    try:
        facts, name = os.fstat(2), os.readlink("/proc/self/fd/2")
    except OSError:
        return None, None
    is_file = os.path.isfile(name) and os.path.samestat(os.stat(name), facts)
    return (os.path.basename(name), facts.st_size) if is_file else (None, None)


def append(path: Path, text: str) -> bool:
    """Add *text* to the file at *path*, whole or with a sentence in the log; whether more may follow."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab", buffering=0) as file:
            if file.tell() >= MOST_BYTES:
                _say(f"{path} is full ({MOST_BYTES >> 20} MiB), no more samples are recorded")
                return False
            data = (b"" if _ends_well(path) else b"\n") + text.encode()
            written = file.write(data)
    except OSError as error:
        _say(f"no samples are recorded from here on: {path} cannot be written ({error.strerror})")
        return False
    if written != len(data):
        _say(f"no samples are recorded from here on: {path} cannot be written (the disk is full)")
    return written == len(data)


def _ends_well(path: Path) -> bool:
    """Whether the file at *path* is empty or ends with a whole line; a killed writer may have left a part of one."""
    with open(path, "rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _say(sentence: str) -> None:
    with suppress(OSError):
        os.write(2, f"lumi-moai: {sentence}\n".encode(errors="replace"))


if __name__ == "__main__":
    main(sys.argv[1:])
