"""sacct's text, in any of its forms (`rows`) or as JSON (`objects`) -> what each job took.

sacct prints an allocation row per job (`123`, `123_4` of an array, `123+1` of a heterogeneous job, `123_[5-9]` not yet
started) and below it one row per step (`123.batch`, `123.0`). The allocation row says what was blocked and for how
long; peak memory and, after some crashes, the true state stand in the step rows only.
"""

import re
from collections.abc import Mapping, Sequence
from math import ceil

from ..errors import RequestError
from ..site import Site
from ..units import parse_gib
from ..usage import Accounting, Usage
from . import objects, rows
from .rows import Row

_NOTHING = ("", "Unknown", "None", "none")


def parse(text: str, site: Site) -> tuple[Accounting, ...]:
    """Every job in *text*, in the order of sacct; nothing where it is none.

    *site* says how many hardware threads its nodes count per core, which is how sacct counts CPUs. Text that is no
    accounting gives fewer jobs, never an error.
    """
    jobs: dict[str, list[Row]] = {}
    found = objects.rows(text) if text.lstrip().startswith("{") else rows.rows(text)
    for row in found:
        jobs.setdefault(row.get("JobID", "").partition(".")[0], []).append(row)
    return tuple(_accounting(job_id, rows, site) for job_id, rows in jobs.items() if job_id)


def _accounting(job_id: str, rows: Sequence[Row], site: Site) -> Accounting:
    whole = [row for row in rows if "." not in row["JobID"]]
    steps = [row for row in rows if "." in row["JobID"]]
    row: Row = whole[-1] if whole else {}
    state, _, by = row.get("State", "").partition(" ")
    state = state.rstrip("+")
    starts = {each.get("Start", ""): each for each in whole}  # with --duplicates one row per start of a requeued job
    seconds = sum(_elapsed(each) for each in starts.values())  # every start is billed
    return Accounting(
        job_id=job_id,
        name=row.get("JobName", ""),
        state="OUT_OF_MEMORY" if state == "FAILED" and any(_out_of_memory(step) for step in steps) else state,
        partition=row.get("Partition", ""),
        account=row.get("Account", ""),
        usage=_usage(row, site, seconds),
        elapsed_seconds=seconds,
        exit_code=_exit_code(row, steps),
        reason=by or _known(row, "Reason") or "",
        max_rss_gib=max((gib for step in steps if (gib := _gib(step.get("MaxRSS", ""), "K"))), default=None),
        restarts=max(_count(row.get("Restarts", "")), len(starts) - 1, 0),
        limit_seconds=_limit(row),
        start=_known(row, "Start"),
        end=_known(row, "End"),
    )


def _out_of_memory(step: Row) -> bool:
    """Slurm notes the kill of a step as 0:125 while the job, whose script went on to fail, is only FAILED."""
    return step.get("State", "").startswith("OUT_OF_ME") or step.get("ExitCode", "") == "0:125"


def _exit_code(row: Row, steps: Sequence[Row]) -> str:
    """The job's `code:signal`; that of the first bad step where a job that did not complete says 0:0 itself."""
    own = row.get("ExitCode", "")
    if row.get("State") == "COMPLETED" or own not in ("", "0:0"):
        return own
    return next((code for step in steps if (code := step.get("ExitCode", "")) not in ("", "0:0")), own)


def _known(row: Row, name: str) -> str | None:
    value = row.get(name, "")
    return None if value in _NOTHING else value


def _usage(row: Row, site: Site, seconds: int) -> Usage:
    tres = dict(part.partition("=")[::2] for part in row.get("AllocTRES", "").split(","))
    partition = row.get("Partition", "")
    known = site.partitions.get(partition)
    threads = site.node(known).threads_per_core if known else 1
    cpus = _count(tres.get("cpu", "")) or _count(row.get("AllocCPUS", "")) or _count(row.get("NCPUS", ""))
    return Usage(
        partition=partition,
        nodes=_count(tres.get("node", "")) or (_count(row.get("NNodes", "")) if tres.get("cpu") else 0),
        devices=_devices(tres),
        cores=ceil(cpus / threads),
        memory_gib=_gib(tres.get("mem", ""), "M") or 0.0,
        hours=seconds / 3600,
    )


def _devices(tres: Mapping[str, str]) -> int:
    """Slurm lists devices as a total and again by type (`gres/gpu=16,gres/gpu:TYPE=16`): the same devices."""
    if "gres/gpu" in tres:
        return _count(tres["gres/gpu"])
    return sum(_count(value) for name, value in tres.items() if name.startswith("gres/gpu:"))


def _elapsed(row: Row) -> int:
    """Seconds, from ElapsedRaw, else from Elapsed (`D-HH:MM:SS`), else from Start and End in seconds."""
    if raw := row.get("ElapsedRaw", ""):
        return _count(raw)
    if (seconds := _clock(row.get("Elapsed", ""))) is not None:
        return seconds
    return max(0, _count(row.get("End", "")) - begun) if (begun := _count(row.get("Start", ""))) else 0


def _clock(text: str) -> int | None:
    match = re.fullmatch(r"(?:(\d{1,6})-)?(\d{1,4}):(\d{1,2}):(\d{1,2})", text, re.ASCII)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _limit(row: Row) -> int | None:
    """Seconds, from TimelimitRaw in minutes, else from Timelimit (`D-HH:MM:SS`); words such as UNLIMITED are none."""
    if raw := _count(row.get("TimelimitRaw", "")):
        return raw * 60
    return _clock(row.get("Timelimit", "")) or None


def _count(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,15}", text, re.ASCII) else 0


def _gib(text: str, unit: str) -> float | None:
    """GiB of a size; sacct leaves the suffix off where `--noconvert` was given or the number is in bytes or *unit*."""
    try:
        return parse_gib(text, unit) if text else None
    except RequestError:
        return None
