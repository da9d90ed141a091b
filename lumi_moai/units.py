"""Times, sizes and core lists as Slurm and Linux write them, both ways."""

import re
from math import ceil

from .errors import RequestError

_SUFFIX_MINUTES = {"m": 1, "h": 60, "d": 1440}
_GIB = {"K": 1 / 1024**2, "M": 1 / 1024, "G": 1.0, "T": 1024.0, "P": 1024.0**2}
_TIME_RULE = "write minutes, HH:MM:SS, D-HH:MM:SS, or 90m, 12h, 2d"


def parse_minutes(text: str | int) -> int:
    """Minutes of a Slurm time limit (`sbatch --time`), rounded up; also `90m`, `12h`, `2d`.

    >>> parse_minutes("2-00:00:00"), parse_minutes("12:00:00"), parse_minutes("30"), parse_minutes("1:30")
    (2880, 720, 30, 2)
    """
    seconds = _seconds(str(text).strip())
    if seconds is None:
        raise RequestError(f"{text!r} is not a time; {_TIME_RULE}")
    if seconds == 0:
        raise RequestError(f"a time limit of {text!r} is no time at all; {_TIME_RULE}")
    return ceil(seconds / 60)


def _seconds(text: str) -> int | None:
    if match := re.fullmatch(r"(\d+)([mhd])", text, re.ASCII):
        return int(match[1]) * _SUFFIX_MINUTES[match[2]] * 60
    if match := re.fullmatch(r"(\d+)-(\d+)(?::(\d+))?(?::(\d+))?", text, re.ASCII):
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if re.fullmatch(r"\d+(:\d+){0,2}", text, re.ASCII):
        parts = [int(part) for part in text.split(":")]
        # Slurm reads one number as minutes and two as minutes:seconds.
        hours, minutes, seconds = {1: (0, *parts, 0), 2: (0, *parts), 3: tuple(parts)}[len(parts)]
        return (hours * 60 + minutes) * 60 + seconds
    return None


def format_minutes(minutes: int) -> str:
    """Slurm's `HH:MM:SS`, with days in front from one day on.

    >>> format_minutes(90), format_minutes(2880)
    ('01:30:00', '2-00:00:00')
    """
    days, rest = divmod(minutes, 1440)
    clock = f"{rest // 60:02d}:{rest % 60:02d}:00"
    return f"{days}-{clock}" if days else clock


def format_seconds(seconds: float) -> str:
    """`HH:MM:SS` with days in front from one day on, for elapsed times."""
    days, rest = divmod(int(seconds), 86400)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days}-{clock}" if days else clock


def parse_gib(text: str | float, unit: str = "M") -> float:
    """GiB of a Slurm memory size; a bare number is in *unit* (Slurm's `--mem` counts MiB).

    >>> parse_gib("480G"), parse_gib("512M"), parse_gib("1T")
    (480.0, 0.5, 1024.0)
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?", str(text).strip(), re.IGNORECASE | re.ASCII)
    if not match:
        raise RequestError(f"{text!r} is not a memory size; write it as Slurm does: 480G, 512M, 1T")
    return float(match[1]) * _GIB[match[2].upper() or unit]


def format_gib(gib: float) -> str:
    """Slurm's shortest exact size: `480G`, or MiB where GiB are not whole."""
    return f"{int(gib)}G" if gib == int(gib) else f"{ceil(gib * 1024)}M"


def parse_cores(text: str) -> tuple[int, ...]:
    """Core numbers of a Linux list, in the order written.

    >>> parse_cores("49-51,0")
    (49, 50, 51, 0)
    """
    cores: list[int] = []
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part, re.ASCII)
        if not match or int(match[2] or match[1]) < int(match[1]) or int(match[2] or 0) > 65535:
            raise RequestError(f"{text!r} is not a list of cores; write it as Linux does: 0-7,16")
        cores.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(cores)


def format_cores(cores: tuple[int, ...] | list[int] | set[int]) -> str:
    """The Linux list of *cores*, sorted and folded: `1-7,9`."""
    folded: list[list[int]] = []
    for core in sorted(set(cores)):
        if folded and core == folded[-1][1] + 1:
            folded[-1][1] = core
        else:
            folded.append([core, core])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in folded)
