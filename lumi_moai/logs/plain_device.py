"""What scripts print by hand with the rate of one device, and none of the whole job.

::

    step 100 | loss 2.41 | 1234 tokens/s/gpu
    step 100: loss 2.41, tokens/s/device: 5.5k

This counts only in a log that has no other format.
"""

from .lines import lines
from .plain import ALSO, PATTERN, TOKENS, rate

_DEVICE = r"(?:/| per |_per_)(?:gpu|device|rank|gcd)"
_TOTAL = rf"(?<![\w/]){TOKENS}(?![\w/]|{_DEVICE})"
FORMAT = lines(
    "plain-per-device",
    "oss",
    PATTERN.replace("{also}", rf"(?=[^\r\n]*?{rate(TOKENS + _DEVICE, 'tokens')})(?![^\r\n]*?{_TOTAL}){{also}}"),
    also=ALSO,
    scope="per_device",
    weak=True,
    vague=True,
    reach=400,
)
