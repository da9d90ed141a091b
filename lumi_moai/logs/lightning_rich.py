"""Lightning's progress bar drawn by rich.

::

    Epoch 0/9 ━━━━━━╸━━━━━━━━━━━ 10/100 0:00:01 • 0:00:12 9.81it/s v_num: 3.000 train_loss: 2.200
"""

from .lines import lines

FORMAT = lines(
    "lightning-rich",
    "it/s",
    r"Epoch (?P<epoch>\d+)/\d+ [^\r\n\d]*━[^\r\n\d]* (?P<step>\d+)/(?P<total>\d+) +[\d:]+ [^\r\n\d]+ [\d:-]+ +"
    r"(?P<per_second>{d})it/s(?:[^\r\n]*? (?:train[_/])?loss(?:_step)?: (?P<loss>{n}))?",
    one_line=False,
)
