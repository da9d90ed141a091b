"""What a page is made of: frozen values, in which text is text and nothing is marked up yet."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A word and what it means."""

    word: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """A fact that is shown large; `tone` is `good`, `bad` or nothing."""

    word: str
    text: str
    small: str = ""
    tone: str = ""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A list of facts; a folded one opens at its title."""

    facts: tuple[Fact, ...]
    title: str = ""
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns and rows; the first `words` columns are text, the rest numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    words: int = 1
    folded: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A chart as a specification, in words, and as a table."""

    id: str
    label: str
    spec: dict[str, Any]
    sentences: tuple[str, ...]
    table: Table | None = None
    other: "Figure | None" = None
    """The same over the clock instead of the steps; a reader chooses."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page under one heading."""

    id: str
    title: str
    cards: tuple[Card, ...] = ()
    sentences: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    lists: tuple[Facts, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """Everything on the page."""

    title: str
    subtitle: str = ""
    sections: tuple[Section, ...] = ()
