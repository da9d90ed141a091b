"""Composer's console logger with one value a line; the loss line stands for its batch.

::

    [epoch=0][batch=16/625]: loss/train/total: 7.1309
"""

from .lines import lines

FORMAT = lines(
    "composer",
    "[batch=",
    r"(?:\[epoch=(?P<epoch>\d+)\])?\[batch=(?P<step>\d+)(?:/(?P<total>\d+))?\]: "
    r"(?:Train )?loss/train/total: (?P<loss>{n})",
)
