"""What lies in a run's folder: its logs and its certificate."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from .. import logs, rundir, sacct
from ..errors import RunError
from ..logs import FORMATS, Evidence, Format, Log
from ..report import Certificate, first_cause
from ..rundir import RunFolder
from ..site import Site
from ..usage import Accounting
from .opened import Plain, opened
from .parts import PART, read_parts


def read_log(path: Path, formats: Sequence[Format] = FORMATS, *, alone: bool = False) -> Log:
    """What the log at *path* says, in the first of *formats* that fits; *alone* without other processes.

    Raises RunError when it cannot be read.
    """
    with opened(path) as file:
        size = path.stat().st_size if isinstance(file, Plain) else 0
        if isinstance(file, Plain) and size >= 2 * PART and not alone:
            return read_parts(file.raw, size, path.name, formats)
        return logs.read(file, path.name, formats)


_TEXT = bytes({*range(32, 127), *range(128, 256), *b"\t\n\r\b\f\x1b"})
_TABLE_BYTES = 64 << 20
"""More than this is no accounting that anybody asked sacct for."""


def read_accounts(path: Path, site: Site) -> tuple[Accounting, ...]:
    """The jobs of the file at *path*, if it is what sacct printed; none if it is anything else, such as a log.

    Raises RunError when it cannot be read.
    """
    with opened(path) as file:
        head = file.read(1 << 16)
        if b"JobID" not in head and not (head.lstrip()[:1] == b"{" and b'"jobs"' in head + file.read(1 << 16)):
            return ()
    with opened(path) as file:
        text = b"".join(iter(partial(file.read, 1 << 20), b"")) if path.stat().st_size <= _TABLE_BYTES else b""
    return sacct.parse(text.decode(errors="replace"), site)


def logs_of(folder: RunFolder, job_id: str, formats: Sequence[Format]) -> tuple[Log | None, Evidence | None]:
    """The log that has the steps, rank 0's where it has any, and of all logs the line nearest to the cause."""
    batch = list(_read_all(folder.logs.glob(f"*-{job_id}.log"), formats))
    parts = [*folder.logs.glob(f"*-{job_id}-rank*.log"), *folder.logs.glob(f"*-{job_id}-node*.log")]
    ended_first = sorted(parts, key=last_written)
    return joined(batch, [(_number(Path(log.name)), log) for log in _read_all(ended_first, formats)])


def joined(batch: Sequence[Log], ranks: Sequence[tuple[int | None, Log]]) -> tuple[Log | None, Evidence | None]:
    """Of the logs of one run the one that has the steps, and the line nearest to the cause; *ranks* as they ended."""
    everything = sorted([*ranks, *((None, log) for log in batch)], key=lambda pair: (pair[0] is None, pair[0] or 0))
    steps = next((log for _, log in everything if log.records), everything[0][1] if everything else None)
    if steps and not steps.remarks:
        steps = replace(steps, remarks=next((log.remarks for _, log in everything if log.remarks), ()))
    said = max((log.evidence for log in batch if log.evidence), key=lambda found: found.weight, default=None)
    return steps, first_cause(said, [_of_rank(log.evidence, rank) for rank, log in ranks if log.evidence])


def _read_all(paths: Iterable[Path], formats: Sequence[Format]) -> Iterator[Log]:
    for path in paths:
        with suppress(RunError):  # one log that cannot be read hides no other
            yield read_log(path, formats)


def last_written(path: Path) -> float:
    """When the file at *path* was written last, seconds since 1970; 0 for one that is gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def oddity(path: Path, log: Log) -> str | None:
    """Why the file at *path*, of which *log* is all there is to say, is no log; None where it is one."""
    if log.records or log.evidence:
        return None
    with opened(path) as file:
        head = file.read(1 << 16)
    if not head:
        return f"{path} is empty"
    odd = head.translate(None, _TEXT)
    return f"{path} is binary, not the text of a log" if len(odd) > len(head) // 10 else None


def _number(path: Path) -> int | None:
    """The number of the rank or node whose log this is."""
    match = re.search(r"-(?:rank|node)(\d{1,9})\.log$", path.name)
    return int(match[1]) if match else None


def _of_rank(evidence: Evidence, rank: int | None) -> Evidence:
    return evidence if evidence.rank is not None else replace(evidence, rank=rank)


def certificate_of(folder: RunFolder, job_id: str) -> tuple[Certificate | None, int]:
    """The certificate of the last start, and how many starts wrote one."""
    found = sorted(folder.certificates.glob(f"{job_id}-r*.json"), key=lambda path: (len(path.name), path.name))
    for path in reversed(found):
        with suppress(RunError):
            written = rundir.read_json(path)
            return (
                Certificate(
                    verdict=str(written.get("verdict", "")),
                    ranks=len(written.get("rows") or ()),
                    faults=tuple(map(str, written.get("faults") or ())),
                    remarks=tuple(map(str, written.get("remarks") or ())),
                ),
                len(found),
            )
    return None, max(len(found), 1)
