"""mmengine and the older mmcv runners; a line of validation (`Epoch(val)`) is no step.

::

    Epoch(train)  [1][ 500/2931]  lr: 2.0000e-02  eta: 0:39:15  time: 0.0578  data_time: 0.0017  loss: 2.1
"""

from .lines import lines

FORMAT = lines(
    "mmengine",
    "Epoch",
    r"\bEpoch(?:\(train\))?\s+\[(?P<epoch>\d+)\]\[ *(?P<step>\d+)/(?P<total>\d+)\]\s+(?:base_)?lr: [^\r\n]*?(?<!_)"
    r"\btime: (?P<seconds>{n}){also}(?:[^\r\n]*?[\s,]loss: (?P<loss>{n}))?",
    also=[r"\bmemory: (?P<mib>\d+)\b"],
)
