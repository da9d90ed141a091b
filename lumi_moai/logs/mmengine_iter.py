"""mmengine and mmcv where they count iterations instead of epochs.

::

    Iter(train) [   50/80000]  lr: 9.9e-03  eta: 13:14:51  time: 0.5961  data_time: 0.0091  memory: 5280  loss: 2.3
"""

from .lines import lines

FORMAT = lines(
    "mmengine-iter",
    "Iter",
    r"\bIter(?:\(train\))?\s+\[ *(?P<step>\d+)/(?P<total>\d+)\]\s+(?:base_)?lr: [^\r\n]*?(?<!_)\btime: (?P<seconds>{n})"
    r"{also}(?:[^\r\n]*?[\s,]loss: (?P<loss>{n}))?",
    also=[r"\bmemory: (?P<mib>\d+)\b"],
)
