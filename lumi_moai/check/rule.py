"""What a rule is, and what it says about a place in a script."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .script import Place

if TYPE_CHECKING:
    from .case import Case

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Put `text` in place of the characters from `start` to `end` of the script."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a mistake costs: units for the whole time limit now, and with the cheaper request."""

    now: float
    cheaper: float
    unit: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A place where a rule holds. `severity` is given where it is less certain than the rule in general."""

    place: Place
    message: str
    severity: Severity | None = None
    edits: tuple[Edit, ...] = ()
    cost: Cost | None = None
    source: str | None = None


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A mistake that is looked for. `id` and `name` never change."""

    id: str
    name: str
    severity: Severity
    title: str
    reason: str
    source: str
    look: Callable[["Case"], Iterable[Hit]]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A hit with its rule."""

    rule: Rule
    hit: Hit

    @property
    def severity(self) -> Severity:
        """That of the hit, else of the rule."""
        return self.hit.severity or self.rule.severity
