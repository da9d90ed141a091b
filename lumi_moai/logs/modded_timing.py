"""modded-nanogpt since it logs no loss of the training; its time is the running average of all steps.

::

    step:11/1770 train_time:1430ms step_avg:130.01ms
"""

from .lines import lines

FORMAT = lines(
    "modded-nanogpt-timing",
    "ms step_avg:",
    r"\bstep:(?P<step>\d+)/(?P<total>\d+) train_time:\d+ms step_avg:(?P<ms>{d})ms",
)
