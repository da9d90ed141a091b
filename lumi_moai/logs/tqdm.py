"""tqdm's bar of a training loop; a bar with a description in front (`Map:`, `Epoch 3:`) is another loop's.

::

     40%|####      | 396/1000 [04:31<04:32,  2.22it/s]
"""

from .lines import lines

FORMAT = lines(
    "tqdm",
    "%|",
    r"(?:(?<![^\r\n])|(?<=[\]A])) *\d+%\|[^\r\n|]*\| (?P<step>\d+)/(?P<total>(?!1 )\d+) \[[\d:]+<[\d:?]+, +"
    r"(?:(?P<per_second>{d})it/s|(?P<seconds>{d})s/it)",
    weak=True,
    one_line=False,
)
