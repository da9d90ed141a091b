"""Reports on runs: of lumi-moai's own, of other jobs of the cluster, and of bare log files."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import billing, catalog, rundir
from ..catalog.formats import log_formats
from ..errors import ConfigError, RequestError, RunError
from ..logs import FORMATS, Evidence, Format, Log
from ..report import Planned, Report, advised, judge, together
from ..rundir import RunFolder
from ..site import Site
from ..usage import Accounting, Bill, Usage
from .accounts import accounts, local_books, part
from .files import certificate_of, joined, last_written, logs_of, oddity, read_accounts
from .folders import LogFile, runs_in
from .many import Reader

JOB_ID = re.compile(r"\d+(_\d+|_\[[\d,:%-]+\]|\+\d+)?", re.ASCII)
"""What Slurm calls a job: `123`, `123_4`, `123+1`."""
_STOPPED_BY_CERTIFICATE = 62


def collect(words: Sequence[str], site: Site | None = None, formats: Sequence[Path] = ()) -> Report:
    """The report on *words*, each a job id, a run folder, or a log file; several become one with `tasks`.

    *site* is where a job ran that lumi-moai did not submit; *formats* are files with log formats of the user's. Raises
    RunError for a word that means nothing, or a file that cannot be read.
    """
    own, warnings = log_formats(formats)
    reader = Reader((*own, *FORMATS)).ahead(map(Path, words))
    reports, lost = _tried(words, lambda word: _collect(word, site, reader))
    whole = reports[0] if len(reports) == 1 else together(f"{len(reports)} runs", reports)
    return _advised(_with_warnings(whole, [*warnings, *lost]))


def _tried(words: Sequence[str], report: Callable[[str], Report]) -> tuple[list[Report], list[str]]:
    """The *report* on each of *words*, and a sentence for each that has none.

    Raises RunError when none has one.
    """
    found: list[Report] = []
    lost: list[str] = []
    for word in words:
        try:
            found.append(report(word))
        except RunError as error:
            lost.append(str(error))
    if not found:
        raise RunError("\n".join(lost))
    return found, lost


def _advised(report: Report) -> Report:
    try:
        return advised(report, catalog.advice())
    except ConfigError as error:
        return _with_warnings(report, [f"there is no advice: {error}"])


def _collect(word: str, site: Site | None, reader: Reader) -> Report:
    if Path(word).is_dir() and not (Path(word) / "submitted.json").is_file():
        return _bare_folder(word, site, reader)
    if Path(word).is_file():
        known = site or catalog.site("local")
        if jobs := read_accounts(Path(word), known):
            return together(word, [_taken(job, known) for job in jobs]) if len(jobs) > 1 else _taken(jobs[0], known)
        log = reader.log(Path(word))
        odd = oddity(Path(word), log)
        return _with_warnings(_of_logs(word, log, log.evidence, site), [odd] if odd else [])
    try:
        folder, job_id = rundir.find(word)
    except RunError:
        if site is None or site.scheduler != "slurm" or not JOB_ID.fullmatch(word):
            raise
        return _foreign(word, site)
    return _of_run(folder, job_id, reader.formats)


def _of_logs(name: str, log: Log | None, cause: Evidence | None, site: Site | None) -> Report:
    """The report on a run of which only logs are known."""
    outcome, evidence = judge(None, "", cause)
    return Report(name=name, outcome=outcome, evidence=evidence, log=log, peak_tflops=_peak(site))


def _bare_folder(word: str, site: Site | None, reader: Reader) -> Report:
    """The report on all runs of which there are logs in a folder, lumi-moai's own among them."""
    own, found = runs_in(Path(word))
    reader = reader.ahead(file.path for files in found.values() for file in files)
    warnings: list[str] = []
    reports: list[Report] = []
    for folder in own:
        try:
            reports.append(_of_run(folder, rundir.entry_of(folder).job_id, reader.formats))
        except RunError as error:
            warnings.append(str(error))
    for name, files in found.items():
        batch, ranks = _read_files(files, reader, warnings)
        log, cause = joined(batch, ranks)
        if log:
            reports.append(_of_logs(name, log, cause, site))
    if not reports:
        seen = f"none of its {sum(map(len, found.values()))} files is a log" if found else "it holds no logs"
        raise RunError("\n".join([f"{word} is not the folder of a submitted run, and {seen}", *warnings]))
    whole = reports[0] if len(reports) == 1 else together(word, reports)
    return _with_warnings(whole, warnings)


def _read_files(
    files: Sequence[LogFile], reader: Reader, warnings: list[str]
) -> tuple[list[Log], list[tuple[int | None, Log]]]:
    """The logs without a rank in their names, and those with one as they ended; what is no log is left out."""
    batch: list[Log] = []
    ranks: list[tuple[int | None, Log]] = []
    for file in sorted(files, key=lambda file: last_written(file.path)):
        try:
            log = reader.log(file.path)
            if file.sure and (odd := oddity(file.path, log)):
                warnings.append(odd)
            elif file.sure or log.records or log.evidence:
                ranks.append((file.rank, log)) if file.rank is not None else batch.append(log)
        except RunError as error:
            warnings.append(str(error))
    return batch, ranks


def _taken(took: Accounting, site: Site) -> Report:
    """The report on a job of which only the accounting is known."""
    outcome, evidence = judge(took.state, took.reason, None)
    bill, warnings = _bill(site, took.usage) if site.scheduler == "slurm" else (None, ())
    return Report(
        name=took.name or took.job_id,
        job_id=took.job_id,
        site=site.name,
        outcome=outcome,
        evidence=evidence,
        accounting=took,
        bill=bill,
        planned=_by_limit(site, took, bill),
        starts=took.restarts + 1,
        warnings=warnings,
    )


def _by_limit(site: Site, took: Accounting, bill: Bill | None) -> Planned | None:
    """What a job could have cost by its time limit, where nobody planned it with lumi-moai."""
    if bill is None or not took.limit_seconds:
        return None
    hours = took.limit_seconds / 3600
    whole, _ = _bill(site, replace(took.usage, hours=hours))
    if whole is None:
        return None
    usage = took.usage
    return Planned(
        billing_units=whole.billing_units, unit=whole.unit, hours=hours, nodes=usage.nodes, devices=usage.devices
    )


def collect_run(folder: RunFolder, job_id: str) -> Report:
    """The report on the run in *folder*; for an array without an index the sum of its tasks, which lie in it.

    Raises RunError when *folder* holds no submitted run.
    """
    own, warnings = log_formats()
    return _advised(_with_warnings(_of_run(folder, job_id, (*own, *FORMATS)), warnings))


def _of_run(folder: RunFolder, job_id: str, formats: Sequence[Format]) -> Report:
    entry = rundir.entry_of(folder)
    warnings: list[str] = []
    site = _site(entry.site, warnings)
    plan = _job_file(folder, warnings)
    local = entry.scheduler != "slurm"
    found = local_books(folder, plan, job_id) if local else accounts(job_id, site, warnings)
    of = partial(_report, folder, site=site, plan=plan, name=entry.name, formats=formats)
    reports = [of(each.job_id, each) for each in found] or [of(job_id, None)]
    whole = reports[0] if len(reports) == 1 else together(entry.name, reports, job_id=job_id)
    return _with_warnings(whole, warnings)


def _with_warnings(report: Report, warnings: Sequence[str]) -> Report:
    return replace(report, warnings=(*warnings, *report.warnings))


def _foreign(job_id: str, site: Site) -> Report:
    """A job that lumi-moai did not submit: no logs, but what it took and cost."""
    warnings: list[str] = []
    found = accounts(job_id, site, warnings)
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
        planned=_by_limit(site, took, bill),
        starts=took.restarts + 1,
        warnings=warnings,
    )


def _report(
    folder: RunFolder,
    job_id: str,
    took: Accounting | None,
    *,
    site: Site | None,
    plan: Mapping[str, Any],
    name: str,
    formats: Sequence[Format],
) -> Report:
    log, cause = logs_of(folder, job_id, formats)
    certificate, starts = certificate_of(folder, job_id)
    strict = part(plan, "launch").get("binding") != "warn"  # a warning stopped nothing
    if certificate and certificate.faults and strict and (cause is None or cause.weight <= _STOPPED_BY_CERTIFICATE):
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
        world_size=part(plan, "launch").get("world_size"),
        peak_tflops=_peak(site, took.partition if took else None),
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


_SIXTEEN_BITS = ("bf16", "fp16")


def _peak(site: Site | None, partition: str | None = None) -> float | None:
    """Dense 16-bit peak of a device of *partition*; without one that of all devices of *site*, if it is the same."""
    if site is None:
        return None
    known = site.partitions.get(partition or "")
    devices = [site.device(site.node(known))] if known else [*site.devices.values()]
    peaks = {
        next((each.peak_tflops[kind] for kind in _SIXTEEN_BITS if kind in each.peak_tflops), None)
        for each in devices
        if each
    }
    return peaks.pop() if len(peaks) == 1 else None


def _planned(plan: Mapping[str, Any]) -> Planned | None:
    estimate = part(plan, "estimate")
    if not estimate:
        return None
    return Planned(
        billing_units=float(estimate.get("billing_units", 0)),
        unit=str(estimate.get("unit", "")),
        hours=float(estimate.get("hours", 0)),
        nodes=estimate.get("nodes"),
        devices=estimate.get("devices"),
    )


def _bill(site: Site, usage: Usage) -> tuple[Bill | None, tuple[str, ...]]:
    try:
        return billing.bill(site, usage), ()
    except RequestError as error:
        return None, (f"there is no bill: {error}",)
