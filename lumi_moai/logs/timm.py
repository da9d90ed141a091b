"""timm: loss and rate of the last batch; in brackets stand the means.

::

    Train: 0 [  50/10009 (  0%)]  Loss:  6.927876 (6.9180)  Time: 1.462s,   87.53/s  (1.896s,   67.51/s)
"""

from .lines import lines

FORMAT = lines(
    "timm",
    "Train: ",
    r"\bTrain: +(?P<epoch>\d+)(?: |/\d+ \( *\d+%\) )\[ *(?P<step>\d+)/(?P<total>\d+) \( *\d+%\)\] +Loss: +(?P<loss>{n})"
    r"(?: \([^)\r\n]*\) +Time: (?P<seconds>{d})s, +(?P<samples>{d})/s)?",
)
