"""GPT-NeoX: Megatron's line with the rate in front.

::

    samples/sec: 6.085 | iteration  20/  11000 | elapsed time per iteration (ms): 164.3 | lm_loss: 9.352045E+00 |
"""

from .lines import lines

FORMAT = lines(
    "gpt-neox",
    "samples/sec: ",
    r"samples/sec: (?P<samples>{n}) \| iteration +(?P<step>\d+)/ *(?P<total>\d+) \|[^\r\n]*?"
    r"elapsed time per iteration \(ms\): (?P<ms>{n}){also}(?:[^\r\n]*?\| lm_loss: (?P<loss>{n}))?",
    also=[r"approx flops per GPU: (?P<tflops>{d})TFLOPS"],
)
