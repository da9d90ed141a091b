"""What the samples of runs show over the clock: memory, power of each package, utilisation."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..samples import Track, spread
from ..samples.history import BINS
from .charts import Line
from .clock import clock_axis
from .figures import curves, logged_memory
from .parts import Figure, Section
from .scale import number
from .story import Story
from .text import count

_MOST_LINES = 8
_NOT_RECORDED = "Not recorded: {why}. While a run runs, the command lumi-moai smi shows the power of each package."


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One kind of track as a chart."""

    kind: str
    id: str
    title: str
    y: str
    thing: str


_MEMORY = _Kind(kind="memory", id="memory-clock", title="Memory of each device over the clock", y="GiB", thing="device")
_RANKS = _Kind(
    kind="ranks", id="memory-clock", title="Memory of each node's ranks over the clock", y="GiB", thing="node"
)
_POWER = _Kind(kind="power", id="power", title="Power of each package over the clock", y="W", thing="package")
_BUSY = _Kind(
    kind="utilisation", id="utilisation", title="Utilisation of each device over the clock", y="%", thing="device"
)


def memory(stories: Sequence[Story]) -> Section:
    """The memory that was seen in use over the clock, and what the log prints over the steps."""
    kind = _MEMORY if any(story.history.of("memory") for story in stories) else _RANKS
    more = (
        "Where the ranks run on the CPU, a device is a rank and this is its resident memory, its workers' with it.",
    )
    seen = _figure(stories, kind, more if _on_cpu(stories) else ())
    printed = logged_memory(stories)
    if seen is None:
        return printed
    return Section(id="memory", title="Memory", figures=(seen, *printed.figures))


def power(stories: Sequence[Story]) -> Section:
    """The power of each package."""
    title = "Power per package"
    drawn = [story.history.kilowatt_hours for story in stories if story.history.kilowatt_hours is not None]
    energy = (f"Together {number(sum(drawn))} kWh, as far as was looked.",) if drawn else ()
    figure = _figure(stories, _POWER, energy)
    if figure is None:
        sources = sorted({source for story in stories for source in story.history.sources})
        looked = any(story.history.looks for story in stories)
        shown = f"{' and '.join(sources)} showed none" if sources else "nobody told of its devices"
        shown = "its ranks are processes on the CPU, which have no sensor" if sources == ["processes"] else shown
        why = f"the run was looked at, but {shown}" if looked else "there are no power readings of it"
        return Section(id="power", title=title, sentences=(_NOT_RECORDED.format(why=why),))
    return Section(id="power", title=title, figures=(figure,))


def utilisation(stories: Sequence[Story]) -> list[Section]:
    """How busy each device was; nothing where nobody looked."""
    busy = "A device is busy while anything runs on it, be it waiting for others."
    cpu = "Of one core, where the ranks run on the CPU."
    figure = _figure(stories, _BUSY, (cpu if _on_cpu(stories) else busy,))
    return [Section(id="utilisation", title="Utilisation", figures=(figure,))] if figure else []


def _on_cpu(stories: Sequence[Story]) -> bool:
    return any("processes" in story.history.sources for story in stories)


def _figure(stories: Sequence[Story], kind: _Kind, more: Sequence[str]) -> Figure | None:
    found = [(story, tracks) for story in stories if (tracks := story.history.of(kind.kind))]
    if not found:
        return None
    axis, alone = clock_axis(stories), len(stories) == 1
    shown = found[:_MOST_LINES]
    lines = _each(shown[0], kind) if alone else [line for each in shown for line in _mean(*each)]
    left_out = f"{len(found) - _MOST_LINES} more runs are not drawn." if len(found) > len(shown) else ""
    of_all = "" if alone else f"A line is the mean over the {kind.thing}s of a run."
    return curves(
        kind.id,
        kind.title,
        axis.scaled(lines),
        x=axis.unit,
        y=kind.y,
        zero=True,
        runs=[story.title for story in stories] if not alone else list(dict.fromkeys(line.name for line in lines)),
        words=[_words(story, tracks, kind, alone=alone) for story, tracks in shown],
        more=[each for each in (of_all, *more, _looked(shown), axis.zero(stories), left_out) if each],
        marks=axis.restarts(stories),
    )


def _each(found: tuple[Story, Sequence[Track]], kind: _Kind) -> list[Line]:
    """A line for each thing; of more than can be told apart the most, the mean and the least of them."""
    story, tracks = found
    names = list(dict.fromkeys(track.name for track in tracks))
    if len(names) <= _MOST_LINES:
        alone = len(story.history.nodes) == 1
        return [Line(name=_short(track.name) if alone else track.name, points=track.points) for track in tracks]
    lines = spread(tracks, max(story.history.seconds / BINS, 1.0))
    return [
        Line(name=f"{word} of {len(names)} {kind.thing}s", points=part)
        for word in ("most", "mean", "least")
        for part in lines[word]
    ]


def _short(name: str) -> str:
    """`node:0+1` without the node, where there is only one."""
    _, colon, devices = name.rpartition(":")
    return f"devices {devices}" if "+" in devices else f"device {devices}" if colon else name


def _mean(story: Story, tracks: Sequence[Track]) -> list[Line]:
    parts = spread(tracks, max(story.history.seconds / BINS, 1.0))["mean"]
    return [Line(name=story.title, points=part) for part in parts]


def _words(story: Story, tracks: Sequence[Track], kind: _Kind, *, alone: bool) -> str:
    """What the chart shows, for who does not see it."""
    values = [value for track in tracks for _, value in track.points]
    things = count(len({track.name for track in tracks}), kind.thing)
    mean = f"{number(sum(values) / len(values))} {kind.y}"
    said = f"{things}: {mean} on average, from {number(min(values))} to {number(max(values))} {kind.y}."
    return said if alone else f"{story.title}: {said}"


def _looked(found: Sequence[tuple[Story, Sequence[Track]]]) -> str:
    looks = sum(story.history.looks for story, _ in found)
    sources = sorted({source for story, _ in found for source in story.history.sources})
    by = f" by {', '.join(sources)}" if sources else ""
    return f"From {looks:,} looks{by}."
