"""ESPnet 2; loss and time are means of the batches that a line names.

::

    1epoch:train:101-200batch: iter_time=0.001, loss_ctc=91.2, loss_att=51.2, acc=0.5, loss=63.1, train_time=0.5
"""

from .lines import lines

FORMAT = lines(
    "espnet",
    "batch: ",
    r"\b(?P<epoch>\d+)epoch:train:\d+-(?P<step>\d+)batch: {also}",
    also=[r"(?:, |batch: )loss=(?P<loss>{n})", r", train_time=(?P<seconds>{n})"],
)
