"""The charts of a page with their words and their numbers: what was logged over the steps, and the scaling."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..logs.thin import Point
from ..scaling import Scaling
from . import scale
from .charts import STYLED, Line, lines_chart, scaling_chart, starts_chart
from .clock import clock_axis, timed
from .parts import Figure, Section, Table
from .scale import number
from .story import Story
from .text import count

_MOST_ROWS = 120
"""In the table below a chart; more of them nobody reads, and the log has them all."""
_MOST_MARKS = 10
_MOST_LINES = 8
"""Runs in one chart; there is no ninth colour that one could tell from the others."""


def loss(stories: Sequence[Story]) -> Section:
    """The loss over the steps, or over the clock where it is known when the steps were logged."""
    lines = [Line(name=story.title, points=start.loss) for story in stories for start in story.series.starts]
    broken = [
        f"{story.title}: not a number in {count(sum(start.broken for start in story.series.starts), 'line')}."
        for story in stories
        if any(start.broken for start in story.series.starts)
    ]
    return _lines(
        "loss",
        "Loss",
        lines,
        y="loss",
        zero=False,
        none=" ".join(broken) or "No loss is in the log.",
        runs=stories,
        more=broken,
        marks=_restarts(stories),
        timed=timed(stories, lambda start: start.loss),
    )


def _restarts(stories: Sequence[Story]) -> list[tuple[float, str]]:
    """Where a training was started again; nothing where the marks of several runs would mix."""
    begun = stories[0].series.starts[1:] if len(stories) == 1 else ()
    return [(start.first_step, f"start {place}") for place, start in enumerate(begun[:_MOST_MARKS], start=2)]


def throughput(stories: Sequence[Story]) -> list[Section]:
    """The throughput over the steps, a section for each thing that is counted."""
    kinds = list(dict.fromkeys(_counted(story) for story in stories if _rates(story)))
    if not kinds:
        return [
            _lines("throughput", "Throughput", [], y="", zero=True, none="No throughput is in the log.", runs=stories)
        ]
    found = []
    for place, kind in enumerate(kinds):
        lines = [
            Line(name=story.title, points=points)
            for story in stories
            if _counted(story) == kind
            for points in _rates(story)
        ]
        title = "Throughput" if len(kinds) == 1 else f"Throughput in {kind}"
        more = ["The first line of a start holds compilation and warm-up."]
        found.append(
            _lines(
                f"throughput-{place}",
                title,
                lines,
                y=kind,
                zero=True,
                none="",
                more=more,
                runs=stories,
                marks=_restarts(stories),
                timed=timed([story for story in stories if _counted(story) == kind], lambda start: start.rate),
            )
        )
    return found


def _rates(story: Story) -> list[tuple[Point, ...]]:
    return [start.rate for start in story.series.starts if start.rate]


def _counted(story: Story) -> str:
    each = " per device" if story.series.scope == "per_device" else ""
    return f"{story.series.unit or 'items'}/s{each}"


def logged_memory(stories: Sequence[Story]) -> Section:
    """The memory of a device over the steps, as the log prints it."""
    lines = [Line(name=story.title, points=points) for story in stories for points in story.series.memory]
    more = ["As the log prints it for one device; where the CPU stands in, for one process."]
    return _lines(
        "memory", "Memory", lines, y="GiB", zero=True, none="Not recorded: no log prints it.", more=more, runs=stories
    )


def _lines(
    name: str,
    title: str,
    lines: Iterable[Line],
    *,
    runs: Sequence[Story],
    y: str,
    zero: bool,
    none: str,
    more: Sequence[str] = (),
    marks: Sequence[tuple[float, str]] = (),
    timed: Sequence[Line] = (),
) -> Section:
    filled = [line for line in lines if line.points]
    names = list(dict.fromkeys(line.name for line in filled))
    kept = [line for line in filled if line.name in names[:_MOST_LINES]]
    if not kept:
        return Section(id=name, title=title, sentences=(none,))
    left_out = [f"{len(names) - _MOST_LINES} more runs are not drawn."] if len(names) > _MOST_LINES else []
    titles = [story.title for story in runs]
    of_kept = [line for line in timed if line.name in names[:_MOST_LINES]]
    over = clock_axis(runs)
    other = curves(
        f"{name}-clock", f"{title} over the clock", over.scaled(of_kept), x=over.unit, y=y, zero=zero, runs=titles,
        more=(over.zero(runs),), marks=over.restarts(runs),
    ) if of_kept else None  # fmt: skip
    figure = curves(
        name, f"{title} over the steps", kept, x="step", y=y, zero=zero, runs=titles, more=(*more, *left_out),
        marks=marks, other=other,
    )  # fmt: skip
    return Section(id=name, title=title, figures=(figure,))


def curves(
    name: str,
    title: str,
    lines: Sequence[Line],
    *,
    x: str,
    y: str,
    zero: bool,
    runs: Sequence[str],
    words: Sequence[str] = (),
    more: Sequence[str] = (),
    marks: Sequence[tuple[float, str]] = (),
    other: Figure | None = None,
) -> Figure:
    """*lines* as a chart, in *words* (else in those that every chart has) and as a table."""
    names = list(dict.fromkeys(line.name for line in lines))
    said = words or [_words(each, [line for line in lines if line.name == each], x, y) for each in names]
    return Figure(
        id=f"{name}-chart",
        label=f"{title}. {' '.join(said)}",
        spec=lines_chart(lines, x=x, y=y, zero=zero, runs=runs, marks=marks),
        sentences=(*said, *more),
        table=_points(lines, x, y),
        other=other,
    )


def _words(name: str, lines: Sequence[Line], x: str, y: str) -> str:
    """What a line looks like, for who does not see it."""
    points = [point for line in lines for point in line.points]
    heights = [height for _, height in points]
    unit = "" if y == "loss" else f" {y}"
    ends = [f"{number(height)}{unit} at {x} {_place(at, x)}" for at, height in (points[0], points[-1])]
    if len(points) == 1:
        return f"{name}: {ends[0]}."
    return f"{name}: {', '.join(ends)}; between {number(min(heights))} and {number(max(heights))}{unit}."


def _place(at: float, x: str) -> str:
    return f"{at:,.0f}" if x == "step" else f"{at:,.4g}"


def _points(lines: Sequence[Line], x: str, y: str) -> Table:
    rows = [(line.name, _place(at, x), f"{height:,.6g}") for line in lines for at, height in line.points]
    every = -(-len(rows) // _MOST_ROWS)
    where = "the log has" if x == "step" else "the run folder has"
    note = "" if every == 1 else f"Every {every}th of the {len(rows):,} points that are drawn; {where} all."
    return Table(columns=("run", x, y), rows=tuple(rows[::every]), title="Numbers", folded=True, note=note)


def starts(stories: Sequence[Story]) -> Section:
    """How often each training was started, and from which step to which."""
    bars, rows = [], []
    for story in stories:
        for place, start in enumerate(story.series.starts, start=1):
            name = f"start {place}" if len(stories) == 1 else f"{story.title}, start {place}"
            bars.append({"run": story.title, "start": name, "first": start.first_step, "last": start.last_step})
            rows.append(_start(story, place))
    again = sum(len(story.series.starts) > 1 for story in stories)
    requeued = [
        f"{story.title} was requeued: {story.report.starts} starts are known from its certificates or the accounting."
        for story in stories
        if story.report.starts > 1
    ]
    ran = _ran(stories)
    if not bars:
        return Section(id="starts", title="Restarts", sentences=("The log has no steps.", *requeued), figures=ran)
    if not again:
        through = "The steps ran through without going back." if len(stories) == 1 else "No run's steps went back."
        return Section(id="starts", title="Restarts", sentences=(through, *requeued), figures=ran)
    table = Table(columns=("run", "start", "first step", "last step", "lines", "steps done again"), rows=tuple(rows))
    sentence = f"{count(len(bars), 'start')} in all; a bar is the steps from one start to the next."
    figure = Figure(
        id="starts-chart",
        label=f"Steps of each start. {sentence}",
        spec=starts_chart(bars, [story.title for story in stories]),
        sentences=(sentence,),
    )
    return Section(id="starts", title="Restarts", sentences=tuple(requeued), figures=(figure, *ran), tables=(table,))


def _ran(stories: Sequence[Story]) -> tuple[Figure, ...]:
    """When each start of the jobs ran, where one of them was started again."""
    if all(len(story.history.starts) < 2 for story in stories):
        return ()
    axis = clock_axis(stories)
    bars = [
        {
            "run": story.title,
            "start": f"start {place}" if len(stories) == 1 else f"{story.title}, start {place}",
            "first": first / axis.seconds,
            "last": last / axis.seconds,
        }
        for story in stories
        for place, (_, first, last) in enumerate(story.history.starts, start=1)
    ]
    said = [f"{bar['start']} from {axis.unit} {bar['first']:,.4g} to {bar['last']:,.4g}" for bar in bars[:_MOST_MARKS]]
    sentence = f"{'; '.join(said)}{'; and more' if len(bars) > len(said) else ''}."
    figure = Figure(
        id="starts-clock-chart",
        label=f"When each start ran. {sentence}",
        spec=starts_chart(bars, [story.title for story in stories], axis.unit),
        sentences=(sentence[0].upper() + sentence[1:], axis.zero(stories)),
    )
    return (figure,)


def _start(story: Story, place: int) -> tuple[str, ...]:
    start = story.series.starts[place - 1]
    again = max(0, story.series.starts[place - 2].last_step - start.first_step + 1) if place > 1 else 0
    return (
        story.title,
        str(place),
        *(f"{value:,}" for value in (start.first_step, start.last_step, start.records, again)),
    )


def scaled(scaling: Scaling) -> Section:
    """The runs beside each other."""
    columns, rows = scale.table(scaling)
    sentences = tuple(scale.sentences(scaling))
    spec: dict[str, Any] = scaling_chart(scaling, STYLED)
    table = Table(columns=columns, rows=tuple(rows), words=2)
    unit = next((each.run.unit for each in scaling.runs if each.run.unit), "items")
    label = f"Throughput in {unit} a second over devices. {' '.join(sentences)}"
    figure = Figure(id="scaling-chart", label=label, spec=spec, sentences=sentences)
    return Section(id="scaling", title="Scaling", figures=(figure,), tables=(table,))
