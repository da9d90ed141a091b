"""Keras' progress bar as an epoch leaves it; the step is that within the epoch, which
TensorFlow 1 counted in samples; the time of one of these is left out.

::

    206/206 [==============================] - 2s 12ms/step - loss: 0.0031 - accuracy: 0.9990
"""

from .lines import lines

FORMAT = lines(
    "keras",
    "[====",
    r"(?:\bEpoch (?P<epoch>\d+)/\d+[^\S\r\n]*\r?\n(?:(?!Epoch \d)[^\n]*\n){0,4000}?[^\n]*?)?"
    r"\b(?P<step>\d+)/(?P<total>\d+) \[=+\] - [\dhms]+ (?:(?:(?P<ms>\d+)ms|(?P<us>\d+)us|(?P<seconds>\d+)s)/step"
    r"|\d+[mu]?s/sample) - loss: (?P<loss>{n})",
    one_line=False,
    reach=1 << 16,
)
