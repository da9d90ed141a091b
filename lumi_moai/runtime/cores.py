"""The cores and the device of one rank: what it was given, what it takes, what it sees."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..binding import Launch, Topology, share_cores
from ..errors import BindingError, RequestError
from ..units import parse_cores
from .meeting import Meeting
from .ranks import Ranks

_CPU = Path("/sys/devices/system/cpu")
_PCI = Path("/sys/bus/pci/devices")
_PCI_CLASSES = ("0x0302", "0x0380", "0x1200")
"""3D controllers, other display controllers and processing accelerators; the console's VGA is none of them."""


def device_index(environ: Mapping[str, str], local_rank: int) -> int:
    """Index on the node of the device of *local_rank*: Slurm says which devices of a node the job got."""
    listed = environ.get("SLURM_STEP_GPUS") or environ.get("SLURM_JOB_GPUS") or ""
    try:
        granted = parse_cores(listed) if listed else ()
    except RequestError:
        granted = ()
    return granted[local_rank] if local_rank < len(granted) else local_rank


def bus_address(device: int) -> str | None:
    """PCI address of *device*, where the system lists its devices in that order; else None."""
    try:
        functions = sorted(entry for entry in _PCI.iterdir() if _is_device(entry))
    except OSError:
        return None
    return functions[device].name if device < len(functions) else None


def _is_device(function: Path) -> bool:
    try:
        return (function / "class").read_text(encoding="ascii").startswith(_PCI_CLASSES)
    except OSError:
        return False


def given_threads() -> tuple[int, ...]:
    """The hardware threads that this process may run on."""
    if not hasattr(os, "sched_getaffinity"):  # macOS has no such notion
        return tuple(range(os.cpu_count() or 1))
    return tuple(sorted(os.sched_getaffinity(0)))


def core_of(thread: int, top: Topology) -> int:
    """The core that hardware *thread* belongs to: itself, or the first of its siblings."""
    if thread in top.usable_cores:
        return thread
    try:
        siblings = parse_cores((_CPU / f"cpu{thread}/topology/thread_siblings_list").read_text(encoding="ascii"))
    except (OSError, RequestError):
        return thread
    return min(siblings)


def seen_cores(top: Topology) -> tuple[int, ...]:
    """The physical cores that this process may run on."""
    return _cores(given_threads(), top)


def bind_here(launch: Launch, ranks: Ranks, device: int, meeting: Meeting, seconds: float) -> None:
    """Move this rank to the cores next to its device, among those that the node's ranks were given.

    On whole nodes with one task per device the masks of the job script are already in force and stay. Must run before
    any thread exists, because a thread keeps the cores it was born with.
    """
    if not launch.bind or (launch.whole_node and launch.launcher != "torchrun"):
        return
    top = launch.topology
    threads = given_threads()
    if launch.whole_node:
        mine = top.near_cores[device] if device < top.devices else ()
    else:
        threads, mine = _share(top, ranks, device, meeting, seconds)
    _take([thread for thread in threads if core_of(thread, top) in mine])


def _share(
    top: Topology, ranks: Ranks, device: int, meeting: Meeting, seconds: float
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """All threads given to the node's ranks, and the cores among them that are this rank's."""
    names = [f"cores-{ranks.node_rank}-{local_rank}" for local_rank in range(ranks.local_world_size)]
    meeting.post(names[ranks.local_rank], {"device": device, "threads": list(given_threads())})
    notes = meeting.collect(names, seconds)
    missing = [str(local_rank) for local_rank, name in enumerate(names) if name not in notes]
    if missing:
        raise BindingError(
            f"on node {ranks.node_rank} local rank {', '.join(missing)} named no cores within {seconds:g} s;"
            " look for its error in the log"
        )
    devices = [notes[name]["device"] for name in names]
    threads = tuple(sorted({thread for name in names for thread in notes[name]["threads"]}))
    if max(devices) >= top.devices:
        return threads, _cores(given_threads(), top)  # the certificate names the device that the node has not
    return threads, share_cores(top, _cores(threads, top), devices)[ranks.local_rank]


def _cores(threads: Iterable[int], top: Topology) -> tuple[int, ...]:
    return tuple(sorted({core_of(thread, top) for thread in threads}))


def _take(threads: Sequence[int]) -> None:
    """Run on *threads* from now on; what the kernel refuses stays as it was, and the certificate shows it."""
    if not threads or not hasattr(os, "sched_setaffinity"):
        return
    try:
        os.sched_setaffinity(0, threads)
    except OSError:
        return
