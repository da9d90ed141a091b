"""Lines of `key=value`.

::

    step=5 loss=3.6606 dt=108.1093 sps=73.9992 mtps=1.2124
"""

from .lines import lines

FORMAT = lines(
    "key=value",
    "step=",
    r"(?:(?<![\w/])epoch=(?P<epoch>\d{1,9}),?[^\S\r\n]+)?(?<![\w/])(?:global_)?step=(?P<step>\d+),?[^\S\r\n]+(?:\w+=[^\s,]+,?[^\S\r\n]+)*?loss=(?P<loss>{n})"
    r"(?:,?[^\S\r\n]+dt=(?P<ms>{n}))?(?:[^\r\n]*?\b(?:sps|samples_per_sec(?:ond)?)=(?P<samples>{n})"
    r"|[^\r\n]*?\b(?:tps|tokens_per_sec(?:ond)?)=(?P<tokens>{n}))?",
    vague=True,
)
