"""Formats that are one pattern: a regular expression with named groups makes a `Format`.

Groups are named after what they hold: `step`, `total`, `loss`; the time of a step as `seconds`, `ms`, `us`, or as its
inverse `per_second`; the rate as `tokens`, `samples` or `images` a second, `mtokens` in millions. Numbers may have
separators of thousands and the suffixes K, M, G. Of one device: `tflops`; its part of the peak as `mfu` or
`mfu_percent`; its memory as `gib` or `mib`. Where the step is one within an epoch, the epoch's number is `epoch`;
where lines have no step, `progress` is anything that grows while the training goes on.
"""

import re
from collections.abc import Callable, Mapping, Sequence

from .format import Format, Row

# What a pattern writes for a number; a number ends where it ends, so that a line that was cut has none.
NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d{1,3})?|nan|inf|NaN|NAN|INF)[KMG]?(?![\w.])"
REACH = 2048
"""Bytes of a line in which a value is looked for; without an end, a long line of texts like steps takes minutes."""
_ANY = re.compile(r"(\[\^(?:[^\]\\]|\\.)*\])\*")
_SUFFIX: Mapping[bytes, float] = {b"K": 1e3, b"M": 1e6, b"G": 1e9}
_SECONDS: Mapping[str, Callable[[float], float]] = {
    "seconds": lambda value: value,
    "ms": lambda value: value / 1e3,
    "us": lambda value: value / 1e6,
    "per_second": lambda value: 1 / value if value else 0.0,
}
_SHARES: Mapping[str, float] = {"mfu": 1.0, "mfu_percent": 0.01}
_MEMORY: Mapping[str, float] = {"gib": 1.0, "mib": 1 / 1024}
_RATES: Mapping[str, tuple[bytes, float]] = {
    "tokens": (b"tokens", 1.0),
    "mtokens": (b"tokens", 1e6),
    "samples": (b"samples", 1.0),
    "images": (b"samples", 1.0),
}


GROUPS = ("step", "total", "epoch", "progress", "loss", *_SECONDS, *_RATES, "tflops", *_SHARES, *_MEMORY)
"""The names that groups may have."""


def lines(
    name: str,
    mark: str,
    pattern: str,
    *,
    also: Sequence[str] = (),
    scope: str = "total",
    weak: bool = False,
    one_line: bool = True,
    vague: bool = False,
    reach: int | None = REACH,
) -> Format:
    """The format called *name* whose step lines match *pattern*; without *one_line* a step may take several lines.

    In it `{n}` stands for a number that must end there, `{d}` for plain digits that a unit may follow, and `{also}` for
    the place from which the patterns *also* are looked for in the rest of the line. Any text of a line is at most
    *reach* bytes of it.
    """
    text = shorthand(pattern, also)
    text = _ANY.sub(rf"\1{{0,{reach}}}", text) if reach else text
    compiled = re.compile(text.encode(), re.MULTILINE)

    def rows(block: bytes) -> list[tuple[bytes, ...]]:
        return [_safe_row(match.groupdict()) for match in compiled.finditer(block)]

    def spans(line: bytes) -> Mapping[str, tuple[int, int]]:
        match = compiled.search(line)
        named = match.groupdict() if match else {}
        return {name: match.span(name) for name, text in named.items() if match and text}

    one = spans if one_line else None
    return Format(name=name, mark=mark.encode(), rows=rows, spans=one, scope=scope, weak=weak, vague=vague)


def shorthand(pattern: str, also: Sequence[str] = ()) -> str:
    """*pattern* with what its `{also}`, `{n}` and `{d}` stand for."""
    whole = pattern.replace("{also}", "".join(f"(?=[^\\r\\n]*?{each})?" for each in also))
    return whole.replace("{n}", NUMBER).replace("{d}", r"\d+(?:\.\d*)?")


def _safe_row(found: Mapping[str, bytes | None]) -> Row:
    """The row of *found*, without what a user's pattern took for a number and is none."""
    try:
        return _row(found)
    except ValueError:
        return _row({name: text for name, text in found.items() if text and _is_number(text)})


def _is_number(text: bytes) -> bool:
    try:
        return number(text) is not None
    except ValueError:
        return False


def _row(found: Mapping[str, bytes | None]) -> Row:
    rate, unit = _rate(found)
    return Row(
        step=_whole(found.get("step")),
        total=_whole(found.get("total")),
        loss=_number(found.get("loss")),
        seconds=_seconds(found),
        rate=rate,
        unit=unit,
        tflops=_number(found.get("tflops")),
        mfu=_scaled(found, _SHARES),
        memory_gib=_scaled(found, _MEMORY),
        epoch=_whole(found.get("epoch")),
        progress=_number(found.get("progress")),
    )


def number(text: bytes) -> float:
    """The number that *text* writes, with separators and suffix."""
    factor = _SUFFIX.get(text[-1:].upper())
    plain = (text[:-1] if factor else text).replace(b",", b"")
    return float(plain) * (factor or 1.0)


def _number(text: bytes | None) -> bytes:
    return repr(number(text)).encode() if text else b""


def _whole(text: bytes | None) -> bytes:
    """A step as digits; one in the form 3.1e+4 is rounded and so is none."""
    plain = (text or b"").replace(b",", b"").strip()
    return plain if plain.isdigit() and len(plain) <= 18 else b""


def _seconds(found: Mapping[str, bytes | None]) -> bytes:
    for name, seconds in _SECONDS.items():
        if text := found.get(name):
            return repr(seconds(number(text))).encode()
    return b""


def _scaled(found: Mapping[str, bytes | None], factors: Mapping[str, float]) -> bytes:
    for name, factor in factors.items():
        if text := found.get(name):
            return repr(number(text) * factor).encode()
    return b""


def _rate(found: Mapping[str, bytes | None]) -> tuple[bytes, bytes]:
    for name, (unit, factor) in _RATES.items():
        if text := found.get(name):
            return repr(number(text) * factor).encode(), unit
    return b"", b""
