"""torchtune's metrics on the screen or in a file; rates and memory are those of one device.

::

    Step 20 | loss:1.79 lr:2e-05 tokens_per_second_per_gpu:3001.5 peak_memory_active:18.5 peak_memory_alloc:18.5
"""

from .lines import lines

FORMAT = lines(
    "torchtune-metrics",
    " | loss:",
    r"\bStep (?P<step>\d+) \| loss:(?P<loss>{n}){also}",
    also=[r"\btokens_per_second_per_gpu:(?P<tokens>{n})", r"\bpeak_memory_active:(?P<gib>{d})"],
    scope="per_device",
)
