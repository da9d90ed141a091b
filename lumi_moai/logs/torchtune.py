"""torchtune's progress bar, whose step counts on over the epochs.

::

    1|20|Loss: 1.7943:   4%|4         | 20/520 [00:19<08:12,  1.06it/s]
"""

from .lines import lines

FORMAT = lines(
    "torchtune",
    "|Loss: ",
    r"\b(?P<epoch>\d+)\|(?P<step>\d+)\|Loss: (?P<loss>{n}): +\d+%\|[^\r\n|]*\| \d+/\d+ \[[\d:]+<[^\],]*, +"
    r"(?:(?P<per_second>{d})it/s|(?P<seconds>{d})s/it)",
    one_line=False,
)
