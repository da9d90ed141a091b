"""A report as a page: which sections there are, and what stands in them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..scaling import Scaling
from ..units import format_cores, format_gib, format_minutes, format_seconds
from . import devices, figures
from .parts import Card, Fact, Facts, Page, Section, Table
from .scale import number
from .story import Story
from .text import count, facts, units

_TONES = {"completed": "good", "running": "", "unknown": ""}
_MOST_RANKS = 256
_MOST_NAMES = 4


def page(stories: Sequence[Story], scaling: Scaling | None = None) -> Page:
    """The page of *stories*; *scaling* is how they compare, None for one run or where they cannot be compared."""
    one = stories[0] if len(stories) == 1 else None
    sections = [
        _summary(stories),
        figures.loss(stories),
        *figures.throughput(stories),
        *([figures.scaled(scaling)] if scaling else []),
        devices.memory(stories),
        devices.power(stories),
        *devices.utilisation(stories),
        figures.starts(stories),
        _bill(stories),
        _binding(stories),
        _environment(stories),
    ]
    return Page(
        title=one.title if one else f"{len(stories)} runs",
        subtitle=_where(one) if one else _together(stories),
        sections=tuple(sections),
    )


def _together(stories: Sequence[Story]) -> str:
    names = [story.title for story in stories[:_MOST_NAMES]]
    rest = f" and {len(stories) - _MOST_NAMES} more" if len(stories) > _MOST_NAMES else ""
    return ", ".join(names) + rest


def _where(story: Story) -> str:
    report, job = story.report, story.job
    took = report.accounting
    parts = [
        f"flavor {story.flavor}" if story.flavor else "",
        f"site {report.site}" if report.site else "",
        f"partition {took.partition}" if took and took.partition else "",
        f"account {job['account']}" if job.get("account") else "",
        f"started {took.start.replace('T', ' ')}" if took and took.start else "",
    ]
    return ", ".join(part for part in parts if part)


def _summary(stories: Sequence[Story]) -> Section:
    warnings = tuple(dict.fromkeys(f"{each}." for story in stories for each in story.report.warnings))
    words = tuple(
        Facts(
            facts=tuple(Fact(word=word, text=text) for word, text in facts(story.report)),
            title="In words" if len(stories) == 1 else f"{story.title} in words",
            folded=True,
        )
        for story in stories
    )
    if len(stories) == 1:
        return Section(id="summary", title="Summary", cards=tuple(_cards(stories[0])), sentences=warnings, lists=words)
    columns = ("run", "flavor", "outcome", "last step", "last loss", "throughput", "devices", "elapsed", "bill")
    table = Table(columns=columns, rows=tuple(_row(story) for story in stories), words=3)
    return Section(id="summary", title="Summary", sentences=warnings, tables=(table,), lists=words)


def _cards(story: Story) -> Iterator[Card]:
    report, log = story.report, story.report.log
    said = dict(facts(report))
    evidence = " ".join(said.get("Outcome", "").split("\n")[1:])
    yield Card(
        word="Outcome",
        text=said.get("Outcome", report.outcome).split("\n")[0],
        small=evidence[:300],
        tone=_TONES.get(report.outcome, "bad"),
    )
    if log and log.records:
        of = f"of {log.total_steps:,}, " if log.total_steps else ""
        yield Card(word="Last step", text=_whole(log.last_step), small=f"{of}{_lines(log.records)} logged")
    if log and log.loss_last is not None:
        least = f", {log.loss_min:.6g} at least" if log.loss_min is not None else ""
        yield Card(word="Loss", text=f"{log.loss_last:.5g}", small=f"{log.loss_first:.6g} at first{least}")
    yield from _amounts(story)


def _amounts(story: Story) -> Iterator[Card]:
    report, log = story.report, story.report.log
    if log and log.throughput:
        unit = log.throughput.unit.removesuffix("_per_second")
        of = "per device, " if log.throughput.scope == "per_device" else ""
        small = f"{of}median of {_lines(log.steady_records)}"
        yield Card(word="Throughput", text=f"{number(log.throughput.median)} {unit}/s", small=small)
    if took := report.accounting:
        small = f"{count(took.usage.devices, 'device')} on {count(took.usage.nodes, 'node')}"
        yield Card(word="Elapsed", text=format_seconds(took.elapsed_seconds), small=small)
    if bill := report.bill:
        yield Card(word="Bill", text=f"{units(bill.billing_units)} {bill.unit}", small=f"decided by {bill.decided_by}")
    if certificate := report.certificate:
        tone = "bad" if certificate.verdict == "wrong" else "good" if certificate.verdict == "right" else ""
        small = f"{count(certificate.ranks, 'rank')} certified"
        yield Card(word="Binding", text=_verdict(certificate.verdict), small=small, tone=tone)


def _lines(number: int) -> str:
    return "1 line" if number == 1 else f"{number:,} lines"


def _verdict(word: str) -> str:
    return {"unbound": "not bound here"}.get(word, word)


def _whole(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _row(story: Story) -> tuple[str, ...]:
    report, log, took = story.report, story.report.log, story.report.accounting
    rate = log.throughput if log else None
    each = " per device" if rate and rate.scope == "per_device" else ""
    return (
        story.title,
        story.flavor or "-",
        dict(facts(report)).get("Outcome", report.outcome).split("\n")[0],
        _whole(log.last_step if log else None),
        "-" if log is None or log.loss_last is None else f"{log.loss_last:.5g}",
        f"{number(rate.median)} {rate.unit.removesuffix('_per_second')}/s{each}" if rate else "-",
        _whole(report.world_size),
        format_seconds(took.elapsed_seconds) if took else "-",
        f"{units(report.bill.billing_units)} {report.bill.unit}" if report.bill else "-",
    )


def _bill(stories: Sequence[Story]) -> Section:
    rows = tuple(_bill_row(story) for story in stories if story.report.bill or story.report.planned)
    if not rows:
        return Section(id="bill", title="Bill", sentences=("Not known: a log alone does not say what a run cost.",))
    columns = ("run", "decided by", "unit", "billed", "planned", "of it used", "an hour", "devices", "cores", "memory")
    return Section(id="bill", title="Bill", tables=(Table(columns=columns, rows=rows, words=3),))


def _bill_row(story: Story) -> tuple[str, ...]:
    bill, planned, took = story.report.bill, story.report.planned, story.report.accounting
    same = bill and planned and planned.unit == bill.unit and planned.billing_units
    return (
        story.title,
        bill.decided_by if bill else "-",
        bill.unit if bill else planned.unit if planned else "-",
        units(bill.billing_units) if bill else "-",
        f"{units(planned.billing_units)} for {format_minutes(round(planned.hours * 60))}" if planned else "-",
        f"{100 * bill.billing_units / planned.billing_units:.3g} %" if bill and planned and same else "-",
        units(bill.per_hour) if bill else "-",
        _whole(took.usage.devices if took else None),
        _whole(took.usage.cores if took else None),
        format_gib(took.usage.memory_gib) if took and took.usage.memory_gib else "-",
    )


def _binding(stories: Sequence[Story]) -> Section:
    known = [story for story in stories if story.report.certificate]
    if not known:
        return Section(id="binding", title="Binding certificate", sentences=("Not recorded: no rank wrote one.",))
    sentences, tables = [], []
    for story in known:
        found = story.report.certificate
        if found:
            notes = [*found.faults, *found.remarks]
            said = f"{story.title}: {_verdict(found.verdict)}, {count(found.ranks, 'rank')} certified."
            sentences += [said, *notes[:5], *([f"And {len(notes) - 5} more."] if len(notes) > 5 else [])]
        if story.rows:
            tables.append(_ranks(story))
    return Section(id="binding", title="Binding certificate", sentences=tuple(sentences), tables=tuple(tables))


def _ranks(story: Story) -> Table:
    rows = tuple(
        (str(row.get("rank", "-")), str(row.get("host", "-")), _cores(row.get("cores")), _shown(row.get("device")))
        for row in story.rows[:_MOST_RANKS]
    )
    rest = len(story.rows) - len(rows)
    note = f"{rest} more ranks are in the run folder's certificate." if rest else ""
    columns = ("rank", "node", "cores", "device")
    return Table(columns=columns, rows=rows, title=f"Ranks of {story.title}", words=4, folded=True, note=note)


def _cores(value: Any) -> str:
    whole = isinstance(value, list) and all(isinstance(core, int) and not isinstance(core, bool) for core in value)
    return format_cores(value) or "-" if whole else "-"


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


def _environment(stories: Sequence[Story]) -> Section:
    lists = [each for story in stories for each in _surroundings(story)]
    if not lists:
        return Section(id="environment", title="Environment", sentences=("Not recorded: there is no run folder.",))
    return Section(id="environment", title="Environment", lists=tuple(lists))


def _surroundings(story: Story) -> Iterator[Facts]:
    passport, packages = story.passport, story.passport.get("packages")
    versions: Mapping[str, Any] = packages if isinstance(packages, dict) else {}
    changed = (
        " with uncommitted changes (changes.diff in the run folder)" if passport.get("uncommitted_changes") else ""
    )
    commit = passport.get("commit")
    words = [
        ("Run folder", story.folder),
        ("Command", _command(story)),
        ("Plan", story.plan.get("moai")),
        ("Code", f"{commit}{changed}" if commit else None),
        ("Repository", passport.get("remote")),
        ("Container", passport.get("container_resolved") or passport.get("container")),
        ("Python", passport.get("python")),
        ("torch", versions.get("torch")),
        ("lumi-moai", passport.get("lumi_moai")),
    ]
    known = tuple(Fact(word=word, text=str(text)) for word, text in words if text)
    if known:
        yield Facts(facts=known, title=story.title)
    if versions:
        every = tuple(Fact(word=str(name), text=str(version)) for name, version in versions.items())
        yield Facts(facts=every, title=f"{count(len(every), 'package')} of {story.title}", folded=True)


def _command(story: Story) -> str | None:
    """The script and its arguments; the script as it was named, not as the copy of it that ran."""
    words = story.job.get("command")
    if not isinstance(words, list):
        return None
    return " ".join(str(word).removeprefix(f"{story.folder}/code/") for word in words)
