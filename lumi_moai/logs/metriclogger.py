"""torchvision's MetricLogger and what was copied from it; loss and time are medians of a window.

::

    Epoch: [0]  [ 10/128]  eta: 0:02:08  lr: 0.000100  loss: 55.7937 (56.1581)  time: 0.5601  data: 0.0091

DETR prints sixty losses ahead of the time, so values are looked for up to the next step, however far that is.
"""

from .lines import lines


def _entry(pattern: str) -> str:
    """*pattern* somewhere in the step's text, if it is there: an `eta: ` that comes before it is the next step's."""
    return rf"(?=[^\r\n]*?  (?:eta: |{pattern}))?"


FORMAT = lines(
    "metriclogger",
    "  eta: ",
    r"(?:Epoch: \[(?P<epoch>\d+)(?:/\d+)?\]|Training) +\[ *(?P<step>\d+)/(?P<total>\d+)\]  eta: "
    + _entry(r"img/s: (?P<images>{d})(?: \([\d.]+\))?(?:  |\s*$)")
    + _entry(r"(?:total_)?loss: (?P<loss>{n}) \(")
    + _entry(r"time: (?P<seconds>{n})")
    + _entry(r"max mem: (?P<mib>\d+)\b"),
    reach=4096,
)
