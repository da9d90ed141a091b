"""A batch script as a value: its directives, its commands with what they know, and what could not be followed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from ..sbatch import Asked, Directive, Header
from .value import known, shown


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where something stands in a file; lines and columns from 1, in characters, the end just behind it."""

    path: str
    line: int
    column: int
    end_line: int
    end_column: int
    start: int | None = None
    end: int | None = None
    """Offsets in the file's text; None inside text that the script makes, where nothing may be changed."""


@dataclass(frozen=True, kw_only=True)
class Word:
    """One word of a command: its value, with holes, and as it is written."""

    text: str
    raw: str
    place: Place

    @property
    def known(self) -> bool:
        """Whether its value is certain."""
        return known(self.text)

    @property
    def shown(self) -> str:
        """Its value for people."""
        return shown(self.text)


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A shell variable at one moment."""

    name: str
    text: str
    """Its value, with holes."""
    raw: str = ""
    """The right side as it is written."""
    exported: bool = False
    place: Place | None = None
    """Where it was set; None where Slurm sets it, or a loop or branch may have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Command:
    """A command with its words, the variables at that moment, and the commands that start it."""

    words: tuple[Word, ...]
    place: Place
    variables: Mapping[str, Variable] = field(repr=False)
    within: tuple["Command", ...] = field(default=(), repr=False)
    """Outermost first: `srun singularity exec X python` is three commands, the last within two."""
    own: tuple[str, ...] = ()
    """Variables that stand in front of it, or that `env` and a container's options set."""
    seen: bool = True
    """False when something that cannot be read may have set variables before."""

    @property
    def name(self) -> str:
        """Its program without the folder."""
        return self.words[0].shown.rpartition("/")[2] if self.words else ""

    @property
    def step(self) -> "Command | None":
        """The `srun` that starts it, None outside of any."""
        return next((command for command in reversed(self.within) if command.name == "srun"), None)

    def starts(self, program: str) -> bool:
        """Whether it is *program*."""
        return self.name == program

    def value(self, name: str) -> str | None:
        """The value of an exported variable, None when it is not set here."""
        found = self.variables.get(name)
        return found.text if found and found.exported else None


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A variable that is set somewhere."""

    variable: Variable
    place: Place
    within: tuple[Command, ...] = field(default=(), repr=False)
    inexact: bool = False

    @property
    def in_task(self) -> bool:
        """Whether it happens in each task of a step, and not once in the batch script."""
        return any(command.name == "srun" for command in self.within)


@dataclass(frozen=True, kw_only=True)
class Absent:
    """A helper script that is called or sourced and could not be read."""

    path: str
    place: Place
    sourced: bool
    within: tuple[Command, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class Script:
    """All that was read of one batch script."""

    path: str
    text: str
    header: Header
    asked: Asked
    commands: tuple[Command, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    absent: tuple[Absent, ...] = ()
    clouds: tuple[Place, ...] = ()
    """Where variables may be set unseen: modules, `eval`, exports by a computed name."""
    unread: tuple[Place, ...] = ()
    """What is no bash that the parser knows."""
    inner: tuple["Script", ...] = ()
    """Batch scripts that this one writes."""
    comments: frozenset[int] = frozenset()
    """Lines of `text` (from 0) that are comments to the shell: not those of here-documents."""
    offset: int = 0
    """Lines in the file above the first of `text`; an inner script has some."""
    base: int | None = 0
    """Where `text` begins in the file, None where it is not there letter by letter."""
    whole: str = ""
    """The file's text; empty where `text` is all of it."""

    @property
    def file_text(self) -> str:
        """What the offsets of places count in."""
        return self.whole or self.text

    def directive(self, name: str) -> Directive | None:
        """The last directive called *name*: it is the one that counts."""
        return next((d for d in reversed(self.header.directives) if d.name == name), None)

    def place(self, directive: Directive, *, value: bool = False) -> Place:
        """Where *directive* stands, or only its value."""
        start = directive.value_start if value else directive.start
        return self.line_place(directive.line, start, directive.end)

    def line_place(self, line: int, start: int = 0, end: int | None = None) -> Place:
        """The characters from *start* to *end* of a line of `text` (from 0)."""
        end = len(self._lines[line].rstrip("\r")) if end is None else end
        at = self._starts[line]
        return Place(
            path=self.path, line=line + self.offset + 1, column=start + 1, end_line=line + self.offset + 1,
            end_column=end + 1, start=None if self.base is None else self.base + at + start,
            end=None if self.base is None else self.base + at + end,
        )  # fmt: skip

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")

    @cached_property
    def _starts(self) -> list[int]:
        starts = [0]
        for line in self._lines:
            starts.append(starts[-1] + len(line) + 1)
        return starts
