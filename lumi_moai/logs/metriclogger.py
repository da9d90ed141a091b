"""torchvision's MetricLogger and what was copied from it; loss and time are medians of a window.

::

    Epoch: [0]  [ 10/128]  eta: 0:02:08  lr: 0.000100  loss: 55.7937 (56.1581)  time: 0.5601  data: 0.0091

DETR prints sixty losses ahead of the time, so values are looked for up to the next step, however far that is.
"""

from .lines import lines

_WITHIN = r"(?:[^\r\ne]|e(?!ta: ))*?"
"""Text of one step: the next one has an `eta: ` of its own."""

FORMAT = lines(
    "metriclogger",
    "  eta: ",
    r"(?:Epoch: \[(?P<epoch>\d+)(?:/\d+)?\]|Training) +\[ *(?P<step>\d+)/(?P<total>\d+)\]  eta: "
    rf"(?={_WITHIN}\bimg/s: (?P<images>{{d}})(?: \([\d.]+\))?(?:  |\s*$))?"
    rf"(?={_WITHIN}\b(?:total_)?loss: (?P<loss>{{n}}) \()?"
    rf"(?={_WITHIN}\btime: (?P<seconds>{{n}}))?"
    rf"(?={_WITHIN}\bmax mem: (?P<mib>\d+)\b)?",
)
