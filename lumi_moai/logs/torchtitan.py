"""torchtitan; its rates are those of one device.

::

    step: 10  loss:  1.23890  grad_norm:  0.0498  memory: 21.78GiB(69.44%)  tps: 3,322  tflops: 24.96  mfu: N/A
"""

from .lines import lines

FORMAT = lines(
    "torchtitan",
    "tps: ",
    r"\bstep: +(?P<step>\d+) +loss: +(?P<loss>{n}){also}[^\r\n]*?\btps: (?P<tokens>{n})",
    also=[r"\bmemory: +(?P<gib>{d})GiB", r"\btflops: (?P<tflops>{n})", r"\bmfu: (?P<mfu_percent>{d})%"],
    scope="per_device",
)
