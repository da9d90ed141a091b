"""What `#SBATCH` lines, or the same options on a command line, ask of Slurm, and what that blocks.

Only what a price depends on is read. The script's shell part is not: Slurm does not look at it either, and takes
variables in `#SBATCH` lines as plain text. What cannot be known is said in a note, never guessed silently.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ..errors import RequestError
from ..units import parse_gib, parse_minutes
from .options import Option, Token, options, tokens

_NUMBERS = {
    "ntasks": "ntasks",
    "ntasks-per-node": "tasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "cpus-per-gpu": "cpus_per_device",
    "gpus": "devices",
    "gpus-per-node": "devices_per_node",
    "gpus-per-task": "devices_per_task",
}
_GRES = re.compile(r"(?:^|,)(?:gres[:/])?gpu(?::[A-Za-z]\w*)?(?::(\d+))?(?=$|[,(])")
_SIZES = {"mem": "memory_gib", "mem-per-cpu": "memory_gib_per_cpu", "mem-per-gpu": "memory_gib_per_device"}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Options of a job as they were given; None for what was not said. Memory in GiB, times in minutes."""

    partition: str | None = None
    account: str | None = None
    minutes: int | None = None
    nodes: int | None = None
    ntasks: int | None = None
    tasks_per_node: int | None = None
    cpus_per_task: int | None = None
    cpus_per_device: int | None = None
    devices: int | None = None
    devices_per_node: int | None = None
    devices_per_task: int | None = None
    memory_gib: float | None = None
    """Per node; 0 is Slurm's word for all memory of the node."""
    memory_gib_per_cpu: float | None = None
    memory_gib_per_device: float | None = None
    exclusive: bool = False
    array_tasks: int = 1
    notes: tuple[str, ...] = ()
    """What could not be read, one sentence each."""


@dataclass(frozen=True, kw_only=True)
class Directive:
    """One option of an `#SBATCH` line."""

    name: str
    """Its long name; empty for a letter that Slurm does not know."""
    value: str
    line: int
    """From 0."""
    start: int
    end: int
    """Where it stands in its line, as offsets, the value included."""
    value_start: int
    """Where the value begins; the same as `end` for an option without one."""
    written: str
    """As it was spelled, without the value: `-N`, `--nodes=`."""
    given: bool = True
    """Whether a value was written at all."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """All `#SBATCH` lines of a script that Slurm reads, and those that it does not see."""

    directives: tuple[Directive, ...] = ()
    lines: tuple[int, ...] = ()
    """The lines that count."""
    late: tuple[int, ...] = ()
    """Lines below the first command: comments to Slurm."""
    open_quotes: tuple[int, ...] = ()
    hetjob: int | None = None
    """The line that begins the second part of a heterogeneous job; what follows it is in no directive here."""
    strays: tuple[tuple[int, str], ...] = ()
    """Words that belong to no option, with their line."""
    later: tuple["Header", ...] = ()
    """The further parts of a heterogeneous job, each with its own lines only."""


BOM = "\ufeff"
"""The byte order mark that some editors put in front of a file."""
_LINE = re.compile(r"#SBATCH\s*(?=\S)")


def header(script: str) -> Header:
    """The `#SBATCH` lines of *script*; Slurm stops at the first line that is neither blank nor a comment."""
    lines = script.split("\n")
    end = next(
        (n for n, line in enumerate(lines) if line.strip() and not line.lstrip().startswith(("#", BOM + "#"))),
        len(lines),
    )
    marked = [n for n, line in enumerate(lines) if _LINE.match(line)]
    counted = [n for n in marked if n < end]
    begins = [n for n in counted if lines[n].split()[1:2] in (["hetjob"], ["packjob"])]
    bounds = pairwise([-1, *begins, len(lines)])
    first, *later = [_part(lines, [n for n in counted if begin < n < stop]) for begin, stop in bounds]
    late = tuple(n for n in marked if n > end)
    return replace(first, lines=tuple(counted), late=late, hetjob=min(begins, default=None), later=tuple(later))


def _part(lines: Sequence[str], counted: Sequence[int]) -> Header:
    """The lines *counted* of *lines*, with nothing of the others."""
    read_lines = [_directives(n, lines[n].rstrip("\r")) for n in counted]
    return Header(
        directives=tuple(directive for found, _, _ in read_lines for directive in found),
        lines=tuple(counted),
        open_quotes=tuple(n for n, (_, broken, _) in zip(counted, read_lines, strict=True) if broken),
        strays=tuple((n, word) for n, (_, _, words) in zip(counted, read_lines, strict=True) for word in words),
    )


def _directives(number: int, line: str) -> tuple[list[Directive], bool, list[str]]:
    words, broken = tokens(line, len("#SBATCH"))
    found, _ = options([word.text for word in words])
    used = {at for option in found for at in range(option.first, option.last + 1)}
    strays = [word.text for at, word in enumerate(words) if at not in used]
    return [_directive(number, line, words, option) for option in found], broken, strays


def _directive(number: int, line: str, words: tuple[Token, ...], option: Option) -> Directive:
    first, last = words[option.first], words[option.last]
    if option.first != option.last:
        value_start = last.start
    else:
        long = line.startswith("--", first.start)
        equals = line.find("=", first.start, first.end if long else first.start + 3)
        value_start = first.end if not option.given else equals + 1 if equals >= 0 else first.start + 2
    return Directive(
        name=option.name,
        value=option.value,
        line=number,
        start=first.start,
        end=last.end,
        value_start=value_start,
        written=line[first.start : value_start],
        given=option.given,
    )


def asked_of(found: Header, script: str) -> Asked:
    """What the directives of *found* ask for; later ones stand in place of earlier ones."""
    lines = script.splitlines()
    values: dict[str, object] = {}
    notes = [f"`{lines[n].strip()}` has an open quote" for n in found.open_quotes]
    for directive in found.directives:
        values |= _value(directive.name, directive.value, notes)
    return Asked(**values, notes=tuple(notes))  # type: ignore[arg-type]


def _value(name: str, text: str, notes: list[str]) -> Mapping[str, object]:
    """The field of `Asked` that the option sets; nothing for options that cost nothing, a note for unreadable ones."""
    try:
        if name in _NUMBERS:
            return {_NUMBERS[name]: _number(text.rpartition(":")[2])}  # a type may stand in front: TYPE:8
        if name in _SIZES:
            return {_SIZES[name]: parse_gib(text)}
        if name == "nodes":
            return {"nodes": _number(text.rpartition("-")[2])}  # of 2-4 the larger: it is what may be billed
        return _others(name, text)
    except RequestError:
        shown = "".join(letter if letter.isprintable() else " " for letter in text)
        notes.append(f"`{name}={shown}` cannot be read; Slurm takes variables in #SBATCH lines as plain text")
        return {}


def _others(name: str, text: str) -> Mapping[str, object]:
    if name in ("partition", "account"):
        return {name: text.partition(",")[0]} if text else {}
    if name == "time":
        return {"minutes": parse_minutes(text)}
    if name == "exclusive":
        return {"exclusive": True}
    if name == "array":
        return {"array_tasks": _array_tasks(text)}
    if name == "gres" and (counts := _GRES.findall(text)):
        return {"devices_per_node": sum(_number(count or "1") for count in counts)}
    return {}


def _number(text: str) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise RequestError(f"{text!r} is not a number")
    return int(text)


def _array_tasks(text: str) -> int:
    """How many tasks `0-9%4`, `1,3,5` or `0-15:4` means."""
    tasks = 0
    for part in text.partition("%")[0].split(","):
        match = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?::([1-9]\d{0,8}))?)?", part, re.ASCII)
        if not match:
            raise RequestError(f"{text!r} is not a list of array indices")
        tasks += len(range(int(match[1]), int(match[2] or match[1]) + 1, int(match[3] or 1)))
    return tasks
