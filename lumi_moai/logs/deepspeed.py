"""DeepSpeed's own timer, which knows no loss.

::

    epoch=0/micro_step=10/global_step=10, RunningAvgSamplesPerSec=173.4, CurrSamplesPerSec=171.9, MemAllocated=3.96GB
"""

from .lines import lines

FORMAT = lines(
    "deepspeed",
    "CurrSamplesPerSec=",
    r"global_step=(?P<step>\d+), RunningAvgSamplesPerSec=[^,\s]+, CurrSamplesPerSec=(?P<samples>{n}){also}",
    also=[r"\bMaxMemAllocated=(?P<gib>{d})GB"],
)
