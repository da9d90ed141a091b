"""Source `processes`: memory and processor time of a local run's ranks from `/proc`, where a rank is the device.

Only `/proc`, no psutil: three numbers of one file are needed, and this file then also works where nothing but Python is
installed. A rank's memory is the resident memory of its process and its loader workers added up; pages that they share
count twice, as in `top`.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from .sample import MIB, Look, Process, Sample

_PROC = Path("/proc")
# How a process learns its rank on the node, from torchrun or from submitit's local executor.
_RANK_VARIABLES = ("LOCAL_RANK", "SUBMITIT_LOCAL_LOCALID")
_SECONDS = 0.25
"""Between the two readings of the processor time; long enough for ticks of 10 ms, short enough to wait for."""

_RECORDER = "-m lumi_moai.monitor.record "
"""Our own process below the first rank of a node is no part of the rank."""
_SHORTEST = 0.1
"""Of less time than this ten ticks at most are known, so nothing is said of it."""


@dataclass(frozen=True, kw_only=True)
class _Stat:
    pid: int
    parent: int
    state: str
    ticks: int
    started_ticks: int
    resident: int
    """Bytes."""


def read(controller: int, *, node: str, memory_total_mib: float) -> Look:
    """The ranks below the process *controller*, each as a device with *memory_total_mib*.

    Utilisation is in percent of one core, at most 100: a rank is given one. Raises RunError when the run is over.
    """
    ranks = Ranks(_ranks(_stats(), controller))
    time.sleep(_SECONDS)
    look = ranks.look(node, memory_total_mib)
    if not look.samples:
        raise RunError(f"process {controller} has ended")
    return look


class Ranks:
    """The ranks of a node by their processes, each as a device; utilisation is that since the look before."""

    def __init__(self, pids: Sequence[int]) -> None:
        """*pids* in the order of the ranks."""
        self._pids = tuple(pids)
        self._before, self._at = _stats(), time.monotonic()

    def look(self, node: str, memory_total_mib: float | None = None) -> Look:
        """The ranks that are still there."""
        after, now = _stats(), time.monotonic()
        looks = [
            _rank(
                device,
                [stat for stat in _family(after, pid) if _RECORDER not in _command(stat.pid)],
                self._before,
                seconds=now - self._at,
                node=node,
                memory_total_mib=memory_total_mib,
            )
            for device, pid in enumerate(self._pids)
            if pid in after
        ]
        self._before, self._at = after, now
        return Look(samples=tuple(sample for sample, _ in looks), processes=tuple(process for _, process in looks))


def _rank(
    device: int,
    family: list[_Stat],
    before: Mapping[int, _Stat],
    *,
    seconds: float,
    node: str,
    memory_total_mib: float | None,
) -> tuple[Sample, Process]:
    memory = sum(stat.resident for stat in family) / MIB
    ticks = sum(stat.ticks - before[stat.pid].ticks for stat in family if stat.pid in before)
    busy = 100.0 * ticks / os.sysconf("SC_CLK_TCK") / seconds if seconds >= _SHORTEST else None
    sample = Sample(
        node=node,
        device=device,
        memory_used_mib=memory,
        memory_total_mib=memory_total_mib,
        utilisation_percent=None if busy is None else min(busy, 100.0),
    )
    pid = max(family, key=lambda stat: stat.resident).pid  # the rank itself rather than the shell that started it
    return sample, Process(node=node, pid=pid, name=_command(pid), memory_used_mib=memory, device=device)


def _stats() -> dict[int, _Stat]:
    pids = (int(path.name) for path in _PROC.iterdir() if path.name.isdecimal())
    return {stat.pid: stat for pid in pids if (stat := _stat(pid)) and stat.state != "Z"}


def _stat(pid: int) -> _Stat | None:
    """One process, None when it has ended meanwhile; fields as numbered in proc(5)."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    field = text.rpartition(")")[2].split()  # the name before it may hold anything; field[0] is number 3, the state
    return _Stat(
        pid=pid,
        parent=int(field[1]),
        state=field[0],
        ticks=int(field[11]) + int(field[12]),
        started_ticks=int(field[19]),
        resident=int(field[21]) * os.sysconf("SC_PAGE_SIZE"),
    )


def _children(stats: Mapping[int, _Stat], pid: int) -> list[int]:
    return sorted(stat.pid for stat in stats.values() if stat.parent == pid)


def _family(stats: Mapping[int, _Stat], pid: int) -> list[_Stat]:
    """The process and everything below it, itself first."""
    return [stats[pid], *(stat for child in _children(stats, pid) for stat in _family(stats, child))]


def _ranks(stats: Mapping[int, _Stat], controller: int) -> list[int]:
    """The rank processes in rank order: those that were told a rank, else the controller's children, else itself."""
    if controller not in stats:
        raise RunError(f"process {controller} has ended")
    told = sorted(_told(stats, _children(stats, controller)))
    return [pid for _, pid in told] or _children(stats, controller) or [controller]


def _told(stats: Mapping[int, _Stat], pids: Iterable[int]) -> Iterator[tuple[int, int]]:
    """(rank, pid) of the topmost processes with a rank; those below them inherited it."""
    for pid in pids:
        rank = _told_rank(pid)
        if rank is None:
            yield from _told(stats, _children(stats, pid))
        else:
            yield rank, pid


def _told_rank(pid: int) -> int | None:
    try:
        pairs = (_PROC / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return None
    given = dict(pair.partition("=")[::2] for pair in pairs)
    return next((int(given[name]) for name in _RANK_VARIABLES if given.get(name, "").isdecimal()), None)


def _command(pid: int) -> str:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "-"
    return " ".join(words).strip() or "-"
