"""One line of a run's samples: how it is written and how it is read, side by side.

::

    {"time": 1763733978.1, "node": "nid005001", "start": "r0", "source": "amdsmi", "devices": [0, 1], "per_package": 2,
     "memory_used_mib": [61033.0, 61020.5], "memory_total_mib": [65520.0, 65520.0],
     "utilisation_percent": [100.0, 99.0], "power_watts": [431.0, null],
     "host_used_mib": 98211.0, "host_total_mib": 515000.0, "load": 14.2,
     "ranks_mib": 21044.0, "log": "train-123-rank0.log", "log_bytes": 20117}

A file has one for each look at one node, oldest first; a value that nobody told is null, never a zero.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

MOST_DEVICES = 64
"""No node has more; a line with more of them is none of ours."""
LONGEST = 1 << 15
"""Bytes of the longest line that is read."""
_COLUMNS = ("memory_used_mib", "memory_total_mib", "utilisation_percent", "power_watts")

Column = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One look at one node. Columns have a value for each of `devices`; memory in MiB, power in watts."""

    time: float
    """Seconds since 1970."""
    node: str
    start: str
    """Which start of the job: `r0`, after a requeue `r1`; with the step of Slurm where that is not 0, `r0-step1`."""
    source: str | None = None
    """Who told of the devices: a reader of `monitor`; `processes` where the ranks themselves stand for them."""
    devices: tuple[int, ...] = ()
    per_package: int = 1
    """How many devices share a power sensor."""
    memory_used_mib: Column = ()
    memory_total_mib: Column = ()
    utilisation_percent: Column = ()
    power_watts: Column = ()
    host_used_mib: float | None = None
    host_total_mib: float | None = None
    load: float | None = None
    """Processes of the node that ran or wanted to, over the last minute."""
    ranks_mib: float | None = None
    """Resident memory of the node's ranks and their children."""
    log: str | None = None
    log_bytes: int | None = None
    """Name and size of the log that the first rank of the node writes."""


def format_line(line: Line) -> str:
    """*line* as one line of JSON with its end; numbers keep one decimal, the time and the load two."""
    written = {key: _short(value, 2 if key in ("time", "load") else 1) for key, value in asdict(line).items()}
    return json.dumps(written, separators=(",", ":"), allow_nan=False) + "\n"


def _short(value: Any, digits: int) -> Any:
    if isinstance(value, tuple):
        return [_short(each, digits) for each in value]
    if isinstance(value, float):
        return round(value, digits) if isfinite(value) else None
    return value


def parse_line(text: str | bytes) -> Line | None:
    """The look that *text* holds; None for a torn line and for anything that is none."""
    if len(text) > LONGEST:
        return None
    try:
        data = json.loads(text)
        return _line(data) if isinstance(data, dict) else None
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _line(data: Mapping[str, Any]) -> Line | None:
    time, node, start, devices = data["time"], data["node"], data["start"], tuple(data.get("devices") or ())
    words = _number(time) is not None and isinstance(node, str) and isinstance(start, str)
    if not words or len(devices) > MOST_DEVICES or not all(type(device) is int for device in devices):
        return None
    size, per_package = data.get("log_bytes"), data.get("per_package")
    return Line(
        time=float(time),
        node=node,
        start=start,
        source=_text(data.get("source")),
        devices=devices,
        per_package=per_package if type(per_package) is int and 0 < per_package <= MOST_DEVICES else 1,
        log=_text(data.get("log")),
        log_bytes=size if type(size) is int and size >= 0 else None,
        **{name: _column(data.get(name), len(devices)) for name in _COLUMNS},
        host_used_mib=_number(data.get("host_used_mib")),
        host_total_mib=_number(data.get("host_total_mib")),
        load=_number(data.get("load")),
        ranks_mib=_number(data.get("ranks_mib")),
    )


def _column(values: object, size: int) -> Any:
    """*size* numbers, each None where *values* has none that can be."""
    told = list(values) if isinstance(values, list) else []
    return tuple(_number(value) for value in (told + [None] * size)[:size])


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value < 0:
        return None
    return float(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def grouped(watts: Sequence[float | None], per_package: int) -> tuple[tuple[int, ...], ...]:
    """The places in *watts*, one node's devices, grouped by the package whose power sensor they share.

    Where *per_package* devices share one, only one of them has a reading (the other says `N/A`: not zero). A device
    with a reading opens a package and those after it without one belong to it, which also holds when a job was given
    devices of different packages.
    """
    groups: list[list[int]] = []
    for place, value in enumerate(watts):
        last = groups[-1] if groups else []
        if last and value is None and watts[last[0]] is not None and len(last) < per_package:
            last.append(place)
        else:
            groups.append([place])
    return tuple(map(tuple, groups))
