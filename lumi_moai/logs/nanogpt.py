"""nanoGPT and its descendants; a line of evaluation (`step 0: train loss`) is no step.

::

    iter 1631: loss 4.0863, time 561.94ms, mfu 30.1%
"""

from .lines import lines

FORMAT = lines(
    "nanogpt",
    "iter ",
    r"\biter (?P<step>\d+): loss (?P<loss>{n}), time (?P<ms>{d})ms{also}",
    also=[r", mfu (?P<mfu_percent>{d})%"],
)
