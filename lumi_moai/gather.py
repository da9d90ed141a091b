"""Fetch what a report needs: logs from their files, usage from the accounting, plans from the run folder.

A report is worth having with parts missing, so what cannot be had becomes a warning in it and the rest still comes.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import billing, catalog, logs, queue, rundir, sacct, slurm
from .errors import ConfigError, RequestError, RunError, SlurmError
from .logs import Evidence, Log
from .report import LIVE, Certificate, Planned, Report, first_cause, judge, together
from .rundir import RunFolder
from .site import Site
from .usage import Accounting, Balance, Bill, Usage

LAG_SECONDS = 6.0
"""How long the accounting may take to learn that a job has ended; on an idle cluster it takes one second."""
_UNKNOWN_SECONDS = 2.0
_JOB_ID = re.compile(r"\d+(_\d+|_\[[\d,:%-]+\]|\+\d+)?", re.ASCII)
_STOPPED_BY_CERTIFICATE = 62


def collect(words: Sequence[str], site: Site | None = None) -> Report:
    """The report on *words*, each a job id, a run folder, or a log file; several become one with `tasks`.

    *site* is where a job ran that lumi-moai did not submit. Raises RunError for a word that means nothing, or a file
    that cannot be read.
    """
    reports = [_collect(word, site) for word in words]
    return reports[0] if len(reports) == 1 else together(f"{len(words)} runs", reports)


def _collect(word: str, site: Site | None) -> Report:
    if Path(word).is_file():
        log = read_log(Path(word))
        outcome, evidence = judge(None, "", log.evidence)
        return Report(name=word, outcome=outcome, evidence=evidence, log=log)
    try:
        folder, job_id = rundir.find(word)
    except RunError:
        if site is None or site.scheduler != "slurm" or not _JOB_ID.fullmatch(word):
            raise
        return _foreign(word, site)
    return collect_run(folder, job_id)


def collect_run(folder: RunFolder, job_id: str) -> Report:
    """The report on the run in *folder*; for an array without an index the sum of its tasks, which lie in it.

    Raises RunError when *folder* holds no submitted run.
    """
    entry = rundir.entry_of(folder)
    warnings: list[str] = []
    site = _site(entry.site, warnings)
    plan = _job_file(folder, warnings)
    local = entry.scheduler != "slurm"
    found = _local_books(folder, plan, job_id) if local else _accounts(job_id, site, warnings)
    reports = [_report(folder, each.job_id, each, site=site, plan=plan, name=entry.name) for each in found]
    if not reports:
        reports = [_report(folder, job_id, None, site=site, plan=plan, name=entry.name)]
    whole = reports[0] if len(reports) == 1 else together(entry.name, reports, job_id=job_id)
    return _with_warnings(whole, warnings)


def _with_warnings(report: Report, warnings: Sequence[str]) -> Report:
    return replace(report, warnings=(*warnings, *report.warnings))


def _foreign(job_id: str, site: Site) -> Report:
    """A job that lumi-moai did not submit: no logs, but what it took and cost."""
    warnings: list[str] = []
    found = _accounts(job_id, site, warnings)
    if not found and not warnings:
        raise RunError(f"there is no job {job_id} in the accounting of site {site.name}, nor among your runs")
    reports = [_accounted(each, site, None) for each in found] or [Report(name="job", job_id=job_id, outcome="unknown")]
    whole = reports[0] if len(reports) == 1 else together(reports[0].name, reports, job_id=job_id)
    return _with_warnings(whole, warnings)


def _accounted(took: Accounting, site: Site, evidence: Evidence | None) -> Report:
    outcome, shown = judge(took.state, took.reason, evidence)
    bill, warnings = _bill(site, took.usage)
    return Report(
        name=took.name,
        job_id=took.job_id,
        site=site.name,
        outcome=outcome,
        evidence=shown,
        accounting=took,
        bill=bill,
        starts=took.restarts + 1,
        warnings=warnings,
    )


def _report(
    folder: RunFolder, job_id: str, took: Accounting | None, *, site: Site | None, plan: Mapping[str, Any], name: str
) -> Report:
    log, cause = _logs(folder, job_id)
    certificate, starts = _certificate(folder, job_id)
    if certificate and certificate.faults and (cause is None or cause.weight <= _STOPPED_BY_CERTIFICATE):
        stop = Evidence(
            outcome="failed", line=certificate.faults[0], place="certificate", weight=_STOPPED_BY_CERTIFICATE
        )
        cause = stop if log is None or not log.records else cause
    outcome, evidence = judge(took.state if took else None, took.reason if took else "", cause)
    bill, warnings = _bill(site, took.usage) if took and site else (None, ())
    return Report(
        name=name,
        job_id=job_id,
        site=site.name if site else None,
        outcome=outcome,
        evidence=evidence,
        log=log,
        accounting=took,
        bill=bill,
        planned=_planned(plan),
        certificate=certificate,
        world_size=_part(plan, "launch").get("world_size"),
        starts=max(starts, took.restarts + 1 if took else 1),
        warnings=warnings,
    )


def _site(name: str, warnings: list[str]) -> Site | None:
    try:
        return catalog.site(name)
    except (RequestError, ConfigError) as error:
        warnings.append(f"there is no bill, because the run's site cannot be read: {error}")
        return None


def _job_file(folder: RunFolder, warnings: list[str]) -> Mapping[str, Any]:
    try:
        return folder.job()
    except RunError as error:
        warnings.append(f"nothing is known of what was planned: {error}")
        return {}


def _part(plan: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = plan.get(name)
    return part if isinstance(part, dict) else {}


def _planned(plan: Mapping[str, Any]) -> Planned | None:
    part = _part(plan, "estimate")
    if not part:
        return None
    return Planned(
        billing_units=float(part.get("billing_units", 0)),
        unit=str(part.get("unit", "")),
        hours=float(part.get("hours", 0)),
        nodes=part.get("nodes"),
        devices=part.get("devices"),
    )


def _bill(site: Site, usage: Usage) -> tuple[Bill | None, tuple[str, ...]]:
    try:
        return billing.bill(site, usage), ()
    except RequestError as error:
        return None, (f"there is no bill: {error}",)


# ---- the accounting --------------------------------------------------------------------------------------------


def _accounts(job_id: str, site: Site | None, warnings: list[str]) -> tuple[Accounting, ...]:
    """The records of *job_id*; asked for again while they call a job live that the queue does not know any more."""
    if site is None:
        return ()
    began = time.monotonic()
    try:
        while True:
            found = sacct.parse(slurm.sacct([job_id]), site)
            patience = LAG_SECONDS if found else _UNKNOWN_SECONDS
            if found and all(each.state not in LIVE for each in found):
                return found
            if time.monotonic() - began > patience or _queued(job_id):
                return found
            time.sleep(1)
    except SlurmError as error:
        warnings.append(f"usage and bill are missing, because the accounting does not answer: {error}")
        return ()


def _queued(job_id: str) -> bool:
    base = re.split(r"[_+]", job_id)[0]
    return any(re.split(r"[_+]", row.job_id)[0] == base for row in queue.parse(slurm.squeue(), slurm.QUEUE_FIELDS))


def _local_books(folder: RunFolder, plan: Mapping[str, Any], job_id: str) -> tuple[Accounting, ...]:
    """What sacct would say of a run on this machine, from its own books; while it runs, that it runs."""
    try:
        books = rundir.read_json(folder.accounting)
    except RunError:
        alive = _controller_lives(folder)
        books = {"state": "RUNNING" if alive else "NODE_FAIL", "reason": "" if alive else "its controller is gone"}
    seconds = int(books.get("elapsed_seconds") or 0)
    job, estimate = _part(plan, "job"), _part(plan, "estimate")
    usage = Usage(
        partition=str(job.get("partition", "")),
        nodes=1,
        devices=int(_part(plan, "launch").get("world_size", 0)),
        cores=int(estimate.get("cores", 0)),
        memory_gib=float(estimate.get("memory_gib", 0)),
        hours=seconds / 3600,
    )
    codes = [code for code in books.get("exit_codes") or [0] if isinstance(code, int)]
    worst = next((code for code in codes if code), 0)
    took = Accounting(
        job_id=job_id,
        name=str(job.get("name", "")),
        state=str(books.get("state", "")),
        partition=usage.partition,
        account="",
        usage=usage,
        elapsed_seconds=seconds,
        exit_code=f"{worst}:0" if worst >= 0 else f"0:{-worst}",
        reason=str(books.get("reason", "")),
    )
    return (took,)


def _controller_lives(folder: RunFolder) -> bool:
    with suppress(RunError, OSError, KeyError, ValueError, TypeError):
        pid = int(rundir.read_json(folder.path / "submitted.json")["pid"])
        return Path(f"/proc/{pid}").exists()
    return False


def balance(site: Site, account: str | None, allocation: str | None, unit: str) -> tuple[Balance | None, str | None]:
    """What is left of *account*'s *allocation* (the key's prefix in the site's file), and a warning for a torn file.

    A site without such a file, or a file that the user may not see, is no reason to say anything.
    """
    if not (site.allocation_file and account and allocation and re.fullmatch(r"[\w.-]+", account)):
        return None, None
    path = Path(site.allocation_file.format(account=account))
    if not path.is_file():
        return None, None
    try:
        hours = rundir.read_json(path)["billing"][f"{allocation}_hours"]
        return Balance(account=account, unit=unit, alloc=float(hours["alloc"]), used=float(hours["used"])), None
    except (RunError, KeyError, TypeError, ValueError) as error:
        said = error if isinstance(error, RunError) else f"{path} has no {allocation}_hours with alloc and used"
        return None, f"what is left of the allocation is not known: {said}"


# ---- files of the run ------------------------------------------------------------------------------------------


def read_log(path: Path) -> Log:
    """What the log at *path* says.

    Raises RunError when it cannot be read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            return logs.read(file, path.name)
    except OSError as error:
        raise RunError(f"the log {path} cannot be read: {error.strerror}") from error


def _logs(folder: RunFolder, job_id: str) -> tuple[Log | None, Evidence | None]:
    """The log that has the steps, rank 0's where it has any, and of all logs the line nearest to the cause."""
    batch = [(None, log) for log in _read_all(folder.logs.glob(f"*-{job_id}.log"))]
    parts = [*folder.logs.glob(f"*-{job_id}-rank*.log"), *folder.logs.glob(f"*-{job_id}-node*.log")]
    ended_first = sorted(parts, key=_last_written)
    ranks = [(_number(Path(log.name)), log) for log in _read_all(ended_first)]
    everything = sorted([*ranks, *batch], key=lambda pair: (pair[0] is None, pair[0] or 0))
    steps = next((log for _, log in everything if log.records), everything[0][1] if everything else None)
    said = next((log.evidence for _, log in batch if log.evidence), None)
    return steps, first_cause(said, [_of_rank(log.evidence, rank) for rank, log in ranks if log.evidence])


def _read_all(paths: Any) -> Iterator[Log]:
    for path in paths:
        with suppress(RunError):  # one log that cannot be read hides no other
            yield read_log(path)


def _last_written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _number(path: Path) -> int | None:
    """The number of the rank or node whose log this is."""
    match = re.search(r"-(?:rank|node)(\d{1,9})\.log$", path.name)
    return int(match[1]) if match else None


def _of_rank(evidence: Evidence, rank: int | None) -> Evidence:
    return evidence if evidence.rank is not None else replace(evidence, rank=rank)


def _certificate(folder: RunFolder, job_id: str) -> tuple[Certificate | None, int]:
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
