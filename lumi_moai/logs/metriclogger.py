"""torchvision's MetricLogger and what was copied from it; loss and time are medians of a window.

::

    Epoch: [0]  [ 10/128]  eta: 0:02:08  lr: 0.000100  loss: 55.7937 (56.1581)  time: 0.5601  data: 0.0091
"""

from .lines import lines

FORMAT = lines(
    "metriclogger",
    "  eta: ",
    r"(?:Epoch: \[(?P<epoch>\d+)(?:/\d+)?\]|Training) +\[ *(?P<step>\d+)/(?P<total>\d+)\]  eta: {also}"
    r"[^\r\n]*?(?:\bimg/s: (?P<images>{d})(?: \([\d.]+\))?(?:  [^\r\n]*?|$))?"
    r"(?:\b(?:total_)?loss: (?P<loss>{n}) \([^\r\n]*?)?(?:\btime: (?P<seconds>{n})|$)",
    reach=1000,
    also=[r"\bmax mem: (?P<mib>\d+)\b"],
)
