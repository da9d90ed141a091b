"""Megatron-LM since 2019, all of its models; a step that the loss scaler skipped has no loss.

::

    iteration  1/  20 | consumed samples:  512 | elapsed time per iteration (ms): 450846.5 | lm loss: 1.099230E+01 |
"""

from .lines import lines

FORMAT = lines(
    "megatron",
    "elapsed time per iteration (ms): ",
    r"^(?![^\r\n]*samples(?:/sec| per second): )[^\r\n]*?\biteration +(?P<step>\d+)/ *(?P<total>\d+) \|[^\r\n]*?"
    r"elapsed time per iteration \(ms\): (?P<ms>{n}){also}(?:[^\r\n]*?\| (?:(?:lm|retrieval) )?loss:? (?P<loss>{n}))?",
    also=[r"(?:throughput per GPU \(TFLOP/s/GPU\)|\| TFLOPs): (?P<tflops>{n})", r"\| tokens/s/gpu: (?P<tokens>{n})"],
    scope="per_device",
)
