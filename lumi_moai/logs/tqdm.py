"""tqdm's bar of a training loop; a bar with a description in front (`Map:`, `Epoch 3:`) is another loop's.

::

     40%|####      | 396/1000 [04:31<04:32,  2.22it/s]
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from .lines import lines

_BARS = lines(
    "tqdm",
    "%|",
    r"(?:(?<![^\r\n])|(?<=[\]A])) *\d+%\|[^\r\n|]*\| (?P<step>\d+)/(?P<total>(?!1 )\d+) \[[\d:]+<[\d:?]+, +"
    r"(?:(?P<per_second>{d})it/s|(?P<seconds>{d})s/it)",
    weak=True,
    one_line=False,
)


def _rows(block: bytes) -> list[tuple[bytes, ...]]:
    """The rows of the loop that most bars are of; an evaluation in between has a bar of another total."""
    rows: Sequence[tuple[bytes, ...]] = _BARS.rows(block)
    totals = Counter(row[1] for row in rows)
    return [row for row in rows if row[1] == totals.most_common(1)[0][0]]


FORMAT = replace(_BARS, rows=_rows)
