"""Keras 3's progress bar as an epoch leaves it; the step is that within the epoch.

::

    206/206 ━━━━━━━━━━━━━━━━━━━━ 2s 12ms/step - accuracy: 0.9990 - loss: 0.0031 - val_loss: 0.0886
"""

from .lines import lines

FORMAT = lines(
    "keras-3",
    "━ ",
    r"(?:\bEpoch (?P<epoch>\d+)/\d+[^\S\r\n]*\r?\n(?:(?!Epoch \d)[^\n]*\n){0,4000}?[^\n]*?)?"
    r"\b(?P<step>\d+)/(?P<total>(?P=step)) +(?:━)+ +[\dhms:]+ "
    r"(?:(?P<ms>\d+)ms|(?P<us>\d+)us|(?P<seconds>\d+)s)/(?:step|epoch) - (?:[^\r\n]*? - )?loss: (?P<loss>{n})",
    one_line=False,
    reach=1 << 16,
)
