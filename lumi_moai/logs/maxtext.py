"""MaxText; its rates are those of one device.

::

    completed step: 9, seconds: 5.667, TFLOP/s/device: 134.924, Tokens/s/device: 8672.758, loss: 10.374
"""

from .lines import lines

FORMAT = lines(
    "maxtext",
    "completed step: ",
    r"completed step: (?P<step>\d+), seconds: (?P<seconds>{n}), TFLOP/s/device: (?P<tflops>{n}), "
    r"Tokens/s/device: (?P<tokens>{n}),[^\r\n]*?\bloss: (?P<loss>{n})",
    scope="per_device",
)
