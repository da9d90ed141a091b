"""fairseq with its simple log format; the summary of an epoch (`train | epoch 001 | loss`) is no step.

::

    train_inner | epoch 001:    100 / 4000 loss=15.9, nll_loss=9.1, ppl=550, wps=28100.7, ups=4.1, num_updates=100
"""

from .lines import lines

FORMAT = lines(
    "fairseq-simple",
    ", num_updates=",
    r"\bepoch \d+: +\d+ / \d+ loss=(?P<loss>{n}),[^\r\n]*?\bwps=(?P<tokens>{n}),[^\r\n]*?\bnum_updates=(?P<step>\d+)\b",
)
