"""The lines of MoAI's 2025 quickstart, whose Hugging Face callback prints a Python dict per logged step.

::

    {'warmup_duration': 12.3}
    {'loss': 1.2, 'grad_norm': 0.5, 'learning_rate': 1e-05, 'epoch': 0.1, 'step': 10, 'tps': 3e4, 'duration': 8.6, ...}

Whether `duration` is that of one step is not said, so it is left out.
"""

import re

from .format import Format, Row

_LINE = re.compile(rb"\{[^{}\r\n]*'tps':[^{}\r\n]*\}")
_PART = re.compile(rb"'(loss|step|tps)': *([-+]?(?:\d{1,300}\.?\d{0,300}(?:[eE][-+]?\d{1,3})?|nan|inf))(?=[,}\s])")


def _rows(block: bytes) -> list[tuple[bytes, ...]]:
    rows = (_row(dict(_PART.findall(line))) for line in _LINE.findall(block))
    return [row for row in rows if row is not None]


def _row(parts: dict[bytes, bytes]) -> Row | None:
    step = parts.get(b"step", b"")
    if not step.isdigit() or len(step) > 18:
        return None
    return Row(step=step, loss=parts.get(b"loss", b""), rate=parts.get(b"tps", b""), unit=b"tokens")


FORMAT = Format(name="moai-trainer", mark=b"'tps':", rows=_rows)
