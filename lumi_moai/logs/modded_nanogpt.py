"""modded-nanogpt; its time is the running average of all steps.

::

    step:11/6200 train_loss:6.2184 train_time:78215ms step_avg:215.62ms
"""

from .lines import lines

FORMAT = lines(
    "modded-nanogpt",
    " train_loss:",
    r"\bstep:(?P<step>\d+)/(?P<total>\d+) train_loss:(?P<loss>{n})"
    r"(?: train_time:\d+ms step_avg:(?:(?P<ms>{d})|nan)ms)?",
)
