"""The journal: what the script has read from its tensors, in order, so that a restarted script reads the same again.

An event is a label (what, where in the script, and the form of its values) and some numbers or texts. Numbers stay
exact: float32 and bfloat16 fit into 64 bits. On disk it is one line of JSON and three plain arrays; no pickle.
"""

import json
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ....errors import RequestError

_ORDER = sys.byteorder
_ARRAYS = ("events", "floats", "ints")


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened before the restart."""

    what: str
    where: str
    form: str
    """The kind of the values, `f`, `i`, `b`, `t` (texts) or `n` (not kept), and after a colon their shape."""
    values: Sequence[Any]


class Journal:
    """Events in their order; new ones are added at the end."""

    def __init__(self) -> None:
        self.labels: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.events = array("q")
        """For each event its label and how many values it has."""
        self.floats = array("d")
        self.ints = array("q")
        self._label_of: dict[tuple[str, str, str], int] = {}
        self._text_of: dict[str, int] = {}
        self._at = [0, 0, 0]

    def note(self, what: str, where: str = "", form: str = "n", values: Sequence[Any] = ()) -> None:
        """Add an event."""
        label = (what, where, form)
        number = self._label_of.get(label)
        if number is None:
            number = self._label_of[label] = len(self.labels)
            self.labels.append(label)
        self.events.extend((number, len(values)))
        if form[0] == "f":
            self.floats.extend(values)
        else:
            self.ints.extend(self._text(value) for value in values) if form[0] == "t" else self.ints.extend(values)

    def _text(self, text: str) -> int:
        number = self._text_of.get(text)
        if number is None:
            number = self._text_of[text] = len(self.texts)
            self.texts.append(text)
        return number

    def peek(self) -> Event | None:
        """The next event of the replay; None when there are no more."""
        event, floats, ints = self._at
        if event >= len(self.events):
            return None
        number, count = self.events[event : event + 2]
        what, where, form = self.labels[number]
        values: Sequence[Any] = (
            self.floats[floats : floats + count] if form[0] == "f" else self.ints[ints : ints + count]
        )
        if form[0] == "t":
            values = [self.texts[value] for value in values]
        elif form[0] == "b":
            values = [bool(value) for value in values]
        return Event(what=what, where=where, form=form, values=values)

    def take(self, what: str, where: str = "") -> Event:
        """The next event of the replay, which must be *what* at the place *where*.

        Raises RequestError when the script does something else than before the restart.
        """
        event = self.peek()
        if event is None or (event.what, event.where) != (what, where):
            raise RequestError(_otherwise(what, where, event))
        self._at[0] += 2
        self._at[1 if event.form[0] == "f" else 2] += len(event.values)
        return event

    def dump(self) -> bytes:
        """All events, for a file."""
        counts = {name: len(getattr(self, name)) for name in _ARRAYS}
        head = {"order": _ORDER, "labels": self.labels, "texts": self.texts, "counts": counts}
        return json.dumps(head).encode() + b"\n" + b"".join(getattr(self, name).tobytes() for name in _ARRAYS)

    @classmethod
    def load(cls, data: bytes) -> "Journal":
        """The journal that `dump` gave. Raises ValueError when it is none."""
        head, _, rest = data.partition(b"\n")
        facts = json.loads(head)
        journal = cls()
        journal.labels = [tuple(label) for label in facts["labels"]]
        journal.texts = list(facts["texts"])
        journal._label_of = {label: number for number, label in enumerate(journal.labels)}
        journal._text_of = {text: number for number, text in enumerate(journal.texts)}
        for name in _ARRAYS:
            numbers, size = getattr(journal, name), facts["counts"][name] * 8
            numbers.frombytes(rest[:size])
            rest = rest[size:]
            if facts["order"] != _ORDER:
                numbers.byteswap()
        return journal


def _otherwise(what: str, where: str, event: Event | None) -> str:
    now = f"{what} {where}".strip()
    before = f"{event.what} {event.where}".strip() if event else "nothing more"
    return (
        f"the restarted script does not repeat what it did before ({now} now, {before} then), so it cannot go on from"
        " the checkpoint; let it depend on nothing but its arguments, its data and its random seeds, or start anew"
        " with --checkpoint off"
    )
