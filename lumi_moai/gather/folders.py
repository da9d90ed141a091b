"""Which files of a folder that lumi-moai did not make are logs, and which of them belong to one run.

Names tell: `slurm-123.out` with `slurm-123.err`, `123_0_log.out` of submitit, `train-rank3.log`, torchrun's
`attempt_0/3/stderr.log`. `slurm-123_4.out` is a run of its own, a task of an array.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import RunError
from ..rundir import RunFolder

DEEP = 4
"""Folders below the one that was named in which logs are looked for."""
MOST = 10_000
"""Files with the name of a log; more are no folder of a run but somebody's home."""
_PACKED = r"(?:\.(?:gz|zst))?"
_LOG = re.compile(
    rf"(?:.*\.(?:log|out|err|txt|jsonl|[oe]\d+)|std(?:out|err)|(?:metrics|summary|history)\.csv){_PACKED}",
    re.IGNORECASE,
)
_SURE = re.compile(rf"(?:.*\.(?:log|out|err|[oe]\d+)|std(?:out|err)){_PACKED}", re.IGNORECASE)
_RANK = re.compile(r"[-_.]?(?:local[-_]?rank|rank|node|worker|proc|task|gpu)[-_.]?(\d{1,6})(?!\d)", re.IGNORECASE)
_SUBMITIT = re.compile(r"(\d+(?:_\d+)?)_(\d{1,6})_log$")
_STREAM = re.compile(r"[-_.]?std(?:out|err)$", re.IGNORECASE)
_ENDING = re.compile(rf"(?:\.(?:log|out|err|txt|jsonl)|\.[oe](\d+))?{_PACKED}$", re.IGNORECASE)
_SKIPPED = ("__pycache__", "node_modules", "site-packages", "lost+found")


@dataclass(frozen=True)
class LogFile:
    """A file with the name of a log. `sure`: no other file is called so. `rank` is None where the name has none."""

    path: Path
    rank: int | None
    sure: bool


def runs_in(folder: Path) -> tuple[list[RunFolder], Mapping[str, list[LogFile]]]:
    """The runs of lumi-moai in *folder*, and the logs of all other runs by what they have in common in their names.

    Raises RunError when there are too many.
    """
    own: list[RunFolder] = []
    found: dict[str, list[LogFile]] = {}
    for count, path in enumerate(_files(folder, own)):
        if count == MOST:
            raise RunError(
                f"{folder} has more than {MOST} logs in it; name the folder of one run, or some of its files"
            )
        run, rank = _belongs(path.relative_to(folder))
        found.setdefault(run, []).append(LogFile(path, rank, _SURE.fullmatch(path.name) is not None))
    return own, found


def _files(folder: Path, own: list[RunFolder]) -> Iterator[Path]:
    for place, names, files in os.walk(folder):
        here = Path(place)
        if "submitted.json" in files:
            own.append(RunFolder(here))
            names.clear()
            continue
        deep = len(here.relative_to(folder).parts)
        names[:] = [] if deep >= DEEP else sorted(n for n in names if not n.startswith(".") and n not in _SKIPPED)
        yield from (here / name for name in sorted(files) if _LOG.fullmatch(name) and not name.startswith("."))


def _belongs(path: Path) -> tuple[str, int | None]:
    """The run that the log at *path* belongs to, and the rank that wrote it."""
    ending = _ENDING.search(path.name)
    stem = path.name[: ending.start()] if ending else path.name
    stem += f"-{ending[1]}" if ending and ending[1] else ""
    if match := _SUBMITIT.search(stem):
        return str(path.with_name(match[1])), int(match[2])
    if match := _RANK.search(stem):
        return str(path.with_name(stem[: match.start()] + stem[match.end() :] or "run")), int(match[1])
    if path.parent.name.isdigit() and _STREAM.fullmatch(stem) and len(path.parent.name) < 7:
        return str(path.parent.parent), int(path.parent.name)
    return str(path.with_name(_STREAM.sub("", stem) or "run")), None
