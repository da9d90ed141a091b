"""Levanter.

::

    Progress on:train 25it/100it	rate:2.0it/s remaining:01:00 elapsed:00:10 postfix:loss=2.5
"""

from .lines import lines

FORMAT = lines(
    "levanter",
    "Progress on:train ",
    r"\bProgress on:train (?P<step>\d+)(?:\.0)?it/(?P<total>\d+)(?:\.0)?it{also}",
    also=[r"\brate:(?P<per_second>{d})it/s", r"\bpostfix:[^\r\n]*?\bloss=(?P<loss>{n})"],
)
