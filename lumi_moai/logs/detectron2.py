"""detectron2.

::

    eta: 0:14:11  iter: 19  total_loss: 76.49  loss_ce: 1.169  time: 0.4365  data_time: 0.0166
"""

from .lines import lines

FORMAT = lines(
    "detectron2",
    "  total_loss: ",
    r"\biter: (?P<step>\d+)  total_loss: (?P<loss>{n}){also}(?:[^\r\n]*?  time: (?P<seconds>{n}))?",
    also=[r"  max_mem: (?P<mib>\d+)M"],
)
