"""Lightning's progress bar.

::

    Epoch 0:   3%|3| 34103/1100000 [5:28:58<171:22:21,  1.73it/s, loss=2.52, v_num=]
    Epoch 0: |          | 10/? [00:05<00:00,  2.00it/s, v_num=0, train_loss=2.52]
"""

from .lines import lines

FORMAT = lines(
    "lightning",
    "Epoch ",
    r"Epoch (?P<epoch>\d+): +(?:(?:\d+%)?\|[^\r\n|]*\| (?=\d+/)|(?=\d+it \[))(?P<step>\d+)"
    r"(?:/(?P<total>\d+)|/\?|it) \[[^\]\r\n]*?"
    r"(?:(?P<per_second>{d})it/s|(?P<seconds>{d})s/it)(?:[^\]\r\n]*?\b(?:train_loss|[Ll]oss)(?:_step)?=(?P<loss>{n}))?",
)
