"""The step lines that lumi-moai writes, which are those of the MoAI tutorials, in all their shapes since 2024.

::

    [Step 4/15] Loss: 1.828125
    [Step 10/6644] Loss: 0.65625 Throughput: 7088.29 tokens/sec
    [Step 2/104] Throughput : 190923.6976217358tokens/sec
    [Step 2/560] | Loss: 1.8515625 | Duration: 3.62 | Throughput: 144909.28 tokens/sec
    [Step 10/1121] | Loss: 1.85 | Duration: 77.31 | 29.80 | Throughput: 30517.43 tokens/sec
    [Step 10] | TPS: 30517.43 tokens/sec | Loss: 1.850000 | LR : 0.00001000 | Duration for 1 Step: 8.59 sec

`[Step 1] Model loading duration : 12.34 sec` has the mark of a step and is none. In the fifth shape the duration is
that of all steps since the line before, so it is no step's time and is left out.
"""

import re
from collections.abc import Mapping

from ..step import STEP, Step, parse_step
from .format import Format

_NUMBER = rb"[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d{1,3})?|nan|inf)"
# The commonest shape is read whole; of the others only the step, and `parse_step`, which knows them all, does the rest.
# A step line also ends where another one is glued to it, as two ranks do.
_LINE = re.compile(
    rb"(?<!lumi-moai: )\[Step (\d{1,18})(?:/(\d{1,18}))?\]"
    rb"(?: \| Loss: (" + _NUMBER + rb") \| Duration: (" + _NUMBER + rb") \| Throughput: (" + _NUMBER + rb")"
    rb" (tokens|samples)/sec(?=[\r\n\[]|\Z)|([^\r\n\[]*(?:\[(?!Step )[^\r\n\[]*)*))"
)
_INTERVAL = re.compile(rb"\| [\d.]+ \| Throughput")
_WARMUP = b"oading duration"


def _rows(block: bytes) -> list[tuple[bytes, ...]]:
    found = _LINE.findall(block)
    rows = (row[:6] if row[2] else _other(row) for row in found)
    return [row for row in rows if row is not None]


def _other(found: tuple[bytes, ...]) -> tuple[bytes, ...] | None:
    """The row of a line of another shape, None for a line that logs no step."""
    rest = found[6]
    step = None if _WARMUP in rest else parse_step(f"[Step 0]{rest[:4096].decode(errors='replace')}")
    if step is None or (step.loss, step.seconds, step.rate) == (None, None, None):
        return None
    seconds = b"" if _INTERVAL.search(rest) else _bytes(step.seconds)
    return found[0], found[1], _bytes(step.loss), seconds, _bytes(step.rate), _unit(step)


def _bytes(number: float | None) -> bytes:
    return b"" if number is None else repr(number).encode()


def _unit(step: Step) -> bytes:
    return step.unit.encode() if step.unit else b""


def _spans(line: bytes) -> Mapping[str, tuple[int, int]]:
    match = _LINE.search(line)
    if match is None or match[7] == b"":
        return {}
    if match[7]:
        return _other_spans(line, match)
    names = ("step", "total", "loss", "seconds", match[6].decode())
    return {name: match.span(place) for place, name in enumerate(names, 1) if match[place]}


def _other_spans(line: bytes, found: re.Match[bytes]) -> Mapping[str, tuple[int, int]]:
    """The places in a line of another shape; of ASCII only, where letters are bytes."""
    begin, end = found.span()
    match = STEP.match(line[begin:end].decode()) if line.isascii() else None
    if match is None:
        return {}
    names = {"rate": (match["unit"] or "").lower()}
    dropped = ("unit", "seconds") if _INTERVAL.search(found[7]) else ("unit",)
    return {
        names.get(name, name): (begin + match.start(name), begin + match.end(name))
        for name, text in match.groupdict().items()
        if text and name not in dropped
    }


FORMAT = Format(name="moai", mark=b"[Step ", rows=_rows, spans=_spans, vague=True)
