"""Runs as a page or a comparison needs them: the report, how the values went, and what lies in the run's folder."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import rundir
from ..errors import RequestError, RunError
from ..logs.series import Series, read_series
from ..report import Report
from ..report.story import Story
from ..rundir import RunFolder
from ..samples import History
from ..scaling import Measured, Scaling, scale
from ..site import Site
from .accounts import part
from .opened import opened
from .runs import collect
from .samples import clock, samples


def stories(words: Sequence[str], site: Site | None = None) -> tuple[Story, ...]:
    """The runs that *words* mean, which are those of `collect`; a task of an array is a run of its own.

    A word that means nothing, or a file that cannot be read, becomes a warning of the first run. Raises RunError where
    that leaves no run.
    """
    told: list[Story] = []
    missing: list[RunError] = []
    for word in words:
        try:
            told += _stories(word, site)
        except RunError as error:
            missing.append(error)
    if not told:
        raise missing[0]
    return _labelled([_warned(told[0], [str(error) for error in missing]), *told[1:]])


def _warned(story: Story, more: Sequence[str]) -> Story:
    return replace(story, report=replace(story.report, warnings=(*more, *story.report.warnings)))


def _labelled(told: list[Story]) -> tuple[Story, ...]:
    """Log files by their names without the folders, where these are enough to tell all of them apart."""
    logs = [story.report.name for story in told if story.folder is None and not story.report.job_id]
    short = {name: Path(name).name for name in logs}
    if len(set(short.values())) < len(short):
        return tuple(told)
    return tuple(replace(story, label=short.get(story.report.name)) for story in told)


def _stories(word: str, site: Site | None) -> list[Story]:
    report = collect([word], site)
    folder = _folder(word)
    found = [_story(word, each, folder) for each in report.tasks or (report,)]
    if report.tasks:  # they carry no warnings of their own
        found[0] = replace(found[0], report=replace(found[0].report, warnings=report.warnings))
    return found


def _folder(word: str) -> RunFolder | None:
    with suppress(RunError):
        return None if Path(word).is_file() else rundir.find(word)[0]
    return None


def _story(word: str, report: Report, folder: RunFolder | None) -> Story:
    log = folder.logs / report.log.name if folder and report.log else Path(word) if folder is None else None
    job = _file(folder, "job.json")
    measured, plan = _file(folder, "measured.json"), _file(folder, "plan.json")
    series = _series(log) if report.log and log else Series()
    history, marks = samples(folder, report.job_id, log) if folder and report.job_id else (History(), ())
    return Story(
        report=report,
        series=series,
        history=history,
        clock=clock(log, series.format, marks, series.rank) if log and series.starts else (),
        flavor=_text(part(job, "job").get("flavor")),
        job=part(job, "job"),
        plan=plan,
        measured=measured,
        passport=_file(folder, "passport.json"),
        rows=_rows(folder, report.job_id),
        folder=str(folder.path) if folder else None,
    )


def _series(log: Path) -> Series:
    with opened(log) as file:
        return read_series(file)


def _file(folder: RunFolder | None, name: str) -> Mapping[str, Any]:
    with suppress(RunError):
        return rundir.read_json(folder.path / name) if folder else {}
    return {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _rows(folder: RunFolder | None, job_id: str | None) -> tuple[Mapping[str, Any], ...]:
    """What the ranks of the last start saw of themselves."""
    found = sorted(folder.certificates.glob(f"{job_id}-r*.json"), key=_age) if folder and job_id else []
    for path in reversed(found):
        with suppress(RunError):
            rows = rundir.read_json(path).get("rows")
            return tuple(row for row in rows if isinstance(row, dict)) if isinstance(rows, list) else ()
    return ()


def _age(path: Path) -> tuple[int, str]:
    return len(path.name), path.name


def measured(story: Story) -> Measured:
    """*story* as the scaling reads it; None for what nothing says."""
    report, series = story.report, story.series
    took, log = report.accounting, report.log
    rate = (log.throughput or log.tokens_per_second) if log else None
    devices = report.world_size or (took.usage.devices if took else None) or series.ranks
    planned = report.planned
    per_hour = report.bill.per_hour if report.bill else None
    if not per_hour and planned and planned.hours:
        per_hour = planned.billing_units / planned.hours
    total = rate.median * devices if rate and rate.scope == "per_device" and devices else None
    work, unit = _work(story)
    return Measured(
        name=report.job_id or story.title,
        flavor=story.flavor,
        nodes=(took.usage.nodes if took else None) or (planned.nodes if planned else None),
        devices=devices or None,
        rate=total or (rate.median if rate and rate.scope == "total" else None),
        unit=rate.unit.removesuffix("_per_second") if rate else None,
        work=work,
        work_unit=unit,
        units_per_hour=per_hour,
        billing_unit=report.bill.unit if report.bill else planned.unit if planned else None,
    )


def compared(told: Sequence[Story]) -> Scaling | None:
    """How the runs scale; None for runs that cannot be compared, or are all of one size."""
    if len({each.devices for each in map(measured, told) if each.devices and each.rate}) < 2:
        return None
    with suppress(RequestError):
        return scale(map(measured, told))
    return None


def _work(story: Story) -> tuple[float | None, str | None]:
    """The work of one global step: what the runtime wrote down, what the log says, or rate x time of the same step."""
    if (rows := story.plan.get("global_batch_rows")) and isinstance(rows, int):
        return float(rows), "rows"
    samples, seconds = story.measured.get("samples_per_second"), story.measured.get("step_seconds")
    if isinstance(samples, float) and isinstance(seconds, float):
        return samples * seconds, "rows"
    if story.series.work:
        return story.series.work, story.series.work_unit
    log = story.report.log
    if log and log.step_seconds and log.throughput and log.throughput.scope == "total":
        return log.throughput.median * log.step_seconds, log.throughput.unit.removesuffix("_per_second")
    return None, None
