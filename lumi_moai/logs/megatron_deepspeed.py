"""Megatron-DeepSpeed where it tells the samples of all ranks, or counts seconds.

::

    iteration  1/  500 | consumed samples:  256 | elapsed time per iteration (s): 45.11 | lm loss: 1.099230E+01 |
"""

from .lines import lines

FORMAT = lines(
    "megatron-deepspeed",
    "elapsed time per iteration (",
    r"\biteration +(?P<step>\d+)/ *(?P<total>\d+) \|[^\r\n]*?elapsed time per iteration "
    r"(?:\(s\): (?P<seconds>{n})|\(ms\): (?P<ms>{n})(?=[^\r\n]*?\| samples per second: )){also}"
    r"(?:[^\r\n]*?\| lm loss: (?P<loss>{n}))?",
    also=[r"\| samples per second: (?P<samples>{n})", r"\| TFLOPs: (?P<tflops>{n})"],
)
