"""Lightning's progress bar.

::

    Epoch 0:   3%|3| 34103/1100000 [5:28:58<171:22:21,  1.73it/s, loss=2.52, v_num=]
"""

from .lines import lines

FORMAT = lines(
    "lightning",
    "Epoch ",
    r"Epoch (?P<epoch>\d+): +\d+%\|[^\r\n|]*\| (?P<step>\d+)/(?P<total>\d+) \[[^\]\r\n]*?"
    r"(?:(?P<per_second>{d})it/s|(?P<seconds>{d})s/it)(?:[^\]\r\n]*?\b(?:train_loss|loss)(?:_step)?=(?P<loss>{n}))?",
)
