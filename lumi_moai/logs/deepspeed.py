"""DeepSpeed's own timer, which knows no loss: its rate stands beside the steps that the script logs.

::

    epoch=0/micro_step=10/global_step=10, RunningAvgSamplesPerSec=173.4, CurrSamplesPerSec=171.9, MemAllocated=3.96GB
    0/10, SamplesPerSec=173.4
"""

from dataclasses import replace

from .lines import lines

_LINES = lines(
    "deepspeed",
    "SamplesPerSec=",
    r"(?:global_step=|\] \d+/)(?P<step>\d+), (?:RunningAvgSamplesPerSec=[^,\s]+, Curr)?SamplesPerSec="
    r"(?P<samples>{n}){also}",
    also=[r"\bMaxMemAllocated=(?P<gib>{d})GB"],
    weak=True,
)
FORMAT = replace(_LINES, beside=True)
