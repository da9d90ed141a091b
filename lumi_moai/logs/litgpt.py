"""LitGPT; `iter` counts micro-batches, `step` the optimizer's.

::

    Epoch 1 | iter 2 step 1 | loss train: 1.660, val: n/a | iter time: 548.72 ms (step)
"""

from .lines import lines

FORMAT = lines(
    "litgpt",
    "| loss train: ",
    r"\biter \d+ step (?P<step>\d+) \| loss train: (?P<loss>{n}),[^\r\n|]*\| iter time: (?P<ms>{n}) ms",
)
