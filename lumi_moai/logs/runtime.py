"""The lines in which our runtime measures a training, for scripts that log no steps of their own.

::

    lumi-moai: [Step 10] | Duration: 0.412 | Throughput: 79612.00 tokens/sec | Memory: 12.31 GiB | MFU: 34.1 %
"""

import re

from .format import Format, Row

MARK = b"lumi-moai: [Step "
_NUMBER = rb"(\d+(?:\.\d*)?(?:e[-+]?\d{1,3})?)"
_LINE = re.compile(
    rb"lumi-moai: \[Step (\d{1,18})\] \| Duration: "
    + _NUMBER
    + rb"(?: \| Throughput: "
    + _NUMBER
    + rb" (tokens|samples)/sec)?"
    rb"(?![^\r\n]*implausible)(?: \| Memory: (\d+(?:\.\d*)?) GiB)?(?: \| MFU: (\d+(?:\.\d*)?) %)?"
)


def _rows(block: bytes) -> list[tuple[bytes, ...]]:
    return [
        Row(step=step, seconds=seconds, rate=rate, unit=unit, memory_gib=memory, mfu=_share(percent))
        for step, seconds, rate, unit, memory, percent in _LINE.findall(block)
    ]


def _share(percent: bytes) -> bytes:
    return repr(float(percent) / 100).encode() if percent else b""


FORMAT = Format(name="lumi-moai", mark=MARK, rows=_rows, weak=True)
