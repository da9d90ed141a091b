"""LitGPT; `iter` counts micro-batches, `step` the optimizer's.

::

    Epoch 1 | iter 2 step 1 | loss train: 1.660, val: n/a | iter time: 548.72 ms (step)
    iter 2 step 1: loss 1.6601, iter time: 548.72ms (optimizer.step)
"""

from .lines import lines

FORMAT = lines(
    "litgpt",
    "iter time: ",
    r"\biter \d+ step (?P<step>\d+)(?: \| loss train)?: (?:loss )?(?P<loss>{n}),"
    r"[^\r\n|]*?(?:\| )?iter time: (?P<ms>{d}) ?ms\b",
)
