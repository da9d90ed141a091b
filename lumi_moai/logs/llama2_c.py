"""llama2.c.

::

    25 | loss 6.1234 | lr 5.000000e-04 | 250.50ms | mfu 10.10%
"""

from .lines import lines

FORMAT = lines(
    "llama2.c",
    " | loss ",
    r"(?:^|(?<=[\]:] ))(?P<step>\d+) \| loss (?P<loss>{n}) \| lr [^\r\n|]+\| (?P<ms>{d})ms{also}",
    also=[r"\| mfu (?P<mfu_percent>{d})%"],
)
