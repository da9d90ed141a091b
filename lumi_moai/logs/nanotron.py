"""nanotron, whose numbers have suffixes: 22.8K is 22,800.

::

    iteration: 327281 / 378950 | elapsed_time_per_iteration_ms: 11.5K | tokens_per_sec: 22.8K | lm_loss: 2.38 |
"""

from .lines import lines

FORMAT = lines(
    "nanotron",
    "time_per_iteration_ms: ",
    r"\biteration: (?P<step>\d+) / (?P<total>\d+) \|[^\r\n]*?time_per_iteration_ms: (?P<ms>{n}) \|"
    r" tokens_per_sec: (?P<tokens>{n}) \|{also}(?:[^\r\n]*?\| lm_loss: (?P<loss>{n}))?",
    also=[r"\| model_tflops_per_gpu: (?P<tflops>{n})"],
)
