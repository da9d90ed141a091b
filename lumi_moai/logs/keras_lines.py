"""Keras with one line an epoch (`verbose=2`); the step is that within the epoch,
which TensorFlow 1 did not print.

::

    206/206 - 2s - loss: 0.0031 - accuracy: 0.9990 - val_loss: 0.0886 - 2s/epoch - 12ms/step
    206/206 - 2s - 12ms/step - accuracy: 0.9990 - loss: 0.0031
     - 2s - loss: 0.0031 - acc: 0.9990
"""

from .lines import lines

FORMAT = lines(
    "keras-lines",
    "s - ",
    r"(?:\bEpoch (?P<epoch>\d+)/\d+[^\S\r\n]*\r?\n)?"
    r"^(?:(?P<step>\d+)/(?P<total>(?P=step)) | ?)- [\dhms:]+ - {also}(?:[^\r\n]*? - )?loss: (?P<loss>{n})",
    also=[r"(?<!\d)(?:(?P<ms>\d+)ms|(?P<us>\d+)us|(?P<seconds>\d+)s)/step\b"],
    one_line=False,
)
