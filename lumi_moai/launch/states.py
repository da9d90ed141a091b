"""What became of the jobs: one squeue for all, sacct for those that ended, the ledger for what is final."""

import json
import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import catalog, queue, rundir, sacct, slurm
from ..errors import RunError, SlurmError
from ..rundir import Entry, RunFolder
from ..usage import Accounting

QUEUE_SECONDS = 5.0
"""How old squeue's answer may be before it is asked again; sites ask for gentle polling."""

RUNNING = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "SIGNALING", "STAGE_OUT")
WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESIZING", "SUBMITTED")


@dataclass(frozen=True, kw_only=True)
class JobState:
    """One row of `status`. Billing units are those so far, by the elapsed time."""

    job_id: str
    name: str
    state: str
    reason: str
    elapsed_seconds: int
    billing_units: float
    advice: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.state not in (*RUNNING, *WAITING, "UNKNOWN")


@dataclass(frozen=True, kw_only=True)
class States:
    """All rows, how old squeue's answer is, and what went wrong on the way, in sentences."""

    rows: tuple[JobState, ...]
    age_seconds: float
    warnings: tuple[str, ...] = ()


def states(entries: Sequence[Entry], *, max_age: float = QUEUE_SECONDS) -> States:
    """The state of each of *entries*; an array is one row per task.

    What has become final is written into the ledger, so that it is never asked for again.
    """
    warnings: list[str] = []
    open_slurm = [entry for entry in entries if entry.state is None and entry.scheduler == "slurm"]
    live, age = _queue(open_slurm, max_age, warnings) if open_slurm else ({}, 0.0)
    gone = [entry for entry in open_slurm if live is not None and len(live.get(entry.job_id, [])) < entry.tasks]
    ended = _ended(gone, warnings)
    rows: list[JobState] = []
    for entry in entries:
        if entry.state is not None:
            rows.append(_final(entry))
        elif entry.scheduler != "slurm":
            rows.append(local_state(entry))
        else:
            rows += _slurm_rows(entry, (live or {}).get(entry.job_id, []), ended.get(entry.job_id, []))
    _remember(entries, rows)
    return States(rows=tuple(rows), age_seconds=age, warnings=tuple(warnings))


def _queue(
    entries: Sequence[Entry], max_age: float, warnings: list[str]
) -> tuple[dict[str, list[queue.Queued]] | None, float]:
    """Rows of squeue by the job id that was submitted, and their age; None when nothing is known of the queue."""
    newest = max(entry.submitted for entry in entries)
    cached = _read_cache()
    if cached is not None and cached[0] > newest and time.time() - cached[0] < max_age:
        return _by_job(cached[1]), time.time() - cached[0]
    try:
        text = slurm.squeue()
    except SlurmError as error:
        warnings.append(str(error))
        return (_by_job(cached[1]), time.time() - cached[0]) if cached is not None else (None, 0.0)
    _write_cache(text)
    return _by_job(text), 0.0


def _by_job(text: str) -> dict[str, list[queue.Queued]]:
    found: dict[str, list[queue.Queued]] = {}
    for row in queue.parse(text, slurm.QUEUE_FIELDS):
        found.setdefault(re.split(r"[_+]", row.job_id)[0], []).append(row)
    return found


def _cache_file() -> Path:
    return rundir.state_folder() / f"queue-{os.environ.get('SLURM_CONF', 'default').replace('/', '%')}.json"


def _read_cache() -> tuple[float, str] | None:
    try:
        cached = json.loads(_cache_file().read_text(encoding="utf-8"))
        return float(cached["time"]), str(cached["text"])
    except (OSError, ValueError, KeyError, TypeError):
        return None  # a cache that is not there or torn is no cache


def _write_cache(text: str) -> None:
    try:
        _cache_file().parent.mkdir(parents=True, exist_ok=True)
        rundir.write_json(_cache_file(), {"time": time.time(), "text": text})
    except (OSError, RunError):
        return  # the answer is still good, only the next call asks again


def forget_queue() -> None:
    """Ask squeue anew next time: the user has just changed something."""
    _cache_file().unlink(missing_ok=True)


def _ended(entries: Sequence[Entry], warnings: list[str]) -> dict[str, list[Accounting]]:
    """Rows of sacct for the jobs that squeue no longer knows; one call for all of them."""
    if not entries:
        return {}
    try:
        text = slurm.sacct([entry.job_id for entry in entries])
    except SlurmError as error:
        warnings.append(f"what ended cannot be told, because the accounting does not answer: {error}")
        return {}
    found: dict[str, list[Accounting]] = {}
    # The site only says how sacct counts cores, which no state depends on, so one stands for all.
    for record in sacct.parse(text, catalog.site(entries[0].site)):
        found.setdefault(re.split(r"[_+]", record.job_id)[0], []).append(record)
    return found


def _slurm_rows(entry: Entry, live: Sequence[queue.Queued], ended: Sequence[Accounting]) -> list[JobState]:
    rows = [_row(entry, row.job_id, row.state, row.reason, row.elapsed_seconds, advice=row.advice) for row in live]
    shown = {row.job_id for row in rows}
    rows += [
        _row(entry, row.job_id, row.state, row.reason, row.elapsed_seconds)
        for row in ended
        if row.job_id not in shown and not (live and "_[" in row.job_id)
    ]
    return rows or [unknown(entry, entry.job_id)]


def unknown(entry: Entry, job_id: str) -> JobState:
    """The row of *job_id*, a run of *entry* that neither the queue nor the accounting shows: one of them lags."""
    return _row(entry, job_id, "UNKNOWN", "", 0)


def _row(entry: Entry, job_id: str, state: str, reason: str, elapsed: int, *, advice: str | None = None) -> JobState:
    return JobState(
        job_id=job_id,
        name=entry.name,
        state=state.partition(" ")[0] if state else "UNKNOWN",  # `CANCELLED by 1000`
        reason=reason if reason not in ("None", "") else "",
        elapsed_seconds=elapsed,
        billing_units=round(entry.units_per_hour * elapsed / 3600, 6),
        advice=advice,
    )


def _final(entry: Entry) -> JobState:
    return _row(entry, entry.job_id, entry.state or "UNKNOWN", entry.reason, entry.elapsed_seconds or 0)


def local_state(entry: Entry) -> JobState:
    """The state of a run on this machine: its books when it ended, its process while it runs."""
    folder = RunFolder(Path(entry.folder))
    running = rundir.controller_of(folder) is not None  # asked first: a controller writes its books before it ends
    try:
        books = rundir.read_json(folder.accounting)
        return _row(entry, entry.job_id, str(books["state"]), "", int(books["elapsed_seconds"]))
    except (RunError, KeyError, ValueError):
        elapsed = max(0, int(time.time() - entry.submitted))
    if running:
        return _row(entry, entry.job_id, "RUNNING", "", elapsed)
    return _row(entry, entry.job_id, "NODE_FAIL", "its controller died with no word", 0)


def _remember(entries: Iterable[Entry], rows: Iterable[JobState]) -> None:
    """Write what has become final into the ledger; an array is final when all of its runs are."""
    by_job: dict[str, list[JobState]] = {}
    for row in rows:
        by_job.setdefault(row.job_id.split("_")[0], []).append(row)
    open_entries = [entry for entry in entries if entry.state is None]
    final = [_end_of(entry, by_job.get(entry.job_id, [])) for entry in open_entries]
    if any(final):
        rundir.record(*(entry for entry in final if entry is not None))


def _end_of(entry: Entry, rows: Sequence[JobState]) -> Entry | None:
    """*entry* with its end, None while a run of it may still change. The first run that failed names the state."""
    if len(rows) < entry.tasks or not all(row.ended for row in rows):
        return None
    worst = next((row for row in rows if row.state != "COMPLETED"), rows[0])
    elapsed = sum(row.elapsed_seconds for row in rows)
    return replace(entry, state=worst.state, reason=worst.reason, elapsed_seconds=elapsed)
