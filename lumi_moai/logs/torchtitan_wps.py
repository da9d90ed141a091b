"""torchtitan of 2024, which called its tokens words; rates are those of one device.

::

    step:  1  loss:  8.1000  memory: 40.10GiB(51.20%)  wps: 8,112  mfu: 42.10%
"""

from .lines import lines

FORMAT = lines(
    "torchtitan-wps",
    "wps: ",
    r"\bstep: +(?P<step>\d+) +loss: +(?P<loss>{n}){also}[^\r\n]*?\bwps: (?P<tokens>{n})",
    also=[r"\bmemory: +(?P<gib>{d})GiB", r"\bmfu: (?P<mfu_percent>{d})%"],
    scope="per_device",
)
