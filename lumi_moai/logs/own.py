"""A format that a user wrote down: a pattern with named groups, checked before it is used.

Python's own regular expressions, because that is the language that people know and that the groups of `lines` are
written in. They may backtrack without end; therefore each block of a log has a time to be read in.
"""

import re
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..errors import RequestError, RunError, did_you_mean
from .format import Format
from .lines import GROUPS, lines, shorthand

SECONDS = 5.0
"""Processor time in which a pattern has to be through with a block of a log; a good one takes milliseconds."""


def _compiled(text: str) -> str:
    """*text*, which is a pattern with groups that we know.

    Raises RequestError that says what is wrong with it.
    """
    pattern = _regex(shorthand(text), text)
    for name in pattern.groupindex:
        if name not in GROUPS:
            raise RequestError(
                f"the group {name!r} is none of {', '.join(GROUPS)}{did_you_mean(name, GROUPS)}; write (?:...) for a"
                " group without a meaning"
            )
    return text


def _regex(text: str, shown: str) -> re.Pattern[bytes]:
    """*text* compiled; what Python only warns of is refused too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(text.encode(), re.MULTILINE)
    except (re.error, RecursionError, OverflowError, Warning) as error:
        raise RequestError(f"{shown!r} is no regular expression: {error}") from error


@dataclass(frozen=True, kw_only=True)
class OwnFormat:
    """What a user's file says: `pattern` finds the step lines, `also` further values in the rest of the same line."""

    name: str
    pattern: str = field(metadata={"parse": _compiled})
    also: tuple[str, ...] = ()
    mark: str = ""
    """Text that every step line has; it only makes reading faster."""
    scope: Literal["total", "per_device"] = "total"

    def __post_init__(self) -> None:
        for each in self.also:
            _compiled(each)
        if self.also and "{also}" not in self.pattern:
            raise RequestError("the pattern has no {also}, the place from which those of `also` are looked for")
        found = _regex(shorthand(self.pattern, self.also), "pattern with also")
        if not {"step", "loss"} & set(found.groupindex):
            raise RequestError("the pattern has neither a group (?P<step>...) nor (?P<loss>...)")
        if found.match(b""):
            raise RequestError("the pattern also fits an empty line; let it ask for a digit at least")

    @property
    def format(self) -> Format:
        """The format, which raises RunError from `rows` where its pattern is too slow."""
        plain = lines(self.name, self.mark, self.pattern, also=self.also, scope=self.scope, reach=None)

        def rows(block: bytes) -> Sequence[tuple[bytes, ...]]:
            with _bounded(self.name):
                return plain.rows(block)

        return replace(plain, rows=rows, spans=None)


@contextmanager
def _bounded(name: str) -> Iterator[None]:
    """Stop what is inside after `SECONDS` of processor time, by the signal that `re` looks for while it works.

    Signals belong to the main thread; in any other there is no bound.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: Any) -> None:
        raise RunError(
            f"the pattern of format {name!r} needs more than {SECONDS:g} s for a few thousand lines; take out repeats"
            " of repeats, such as (a+)+ or (.*a)*"
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
