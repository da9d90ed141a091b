"""What scripts print by hand with the loss ahead of the step.

::

    INFO:tensorflow:loss = 2.1, step = 100 (3.123 sec)
    loss: 9.03, learning_rate: 1e-05, global_step: 20, interval_samples_per_second: 31.5

This counts only in a log that has no other format.
"""

from .lines import lines
from .plain import RATES

FORMAT = lines(
    "loss-first",
    "oss",
    r"(?i)(?<![a-z_])(?<!val )(?<!test )(?<!eval )(?<!valid )(?<!validation )(?:train(?:ing)?[_ ])?loss ?[:=] ?"
    r"(?P<loss>{n}),?[ \t][^\r\n]{0,160}?\b(?:global[_ ])?(?:step|iter|iteration)(?: ?[:=]| ?\[)? {0,9}"
    r"(?P<step>\d{1,18})(?: ?/ ?(?P<total>\d{1,18})\b)?(?![\w.]){also}",
    also=[r"\binterval_samples_per_second: (?P<samples>{n})", RATES[0]],
    weak=True,
    vague=True,
    reach=400,
)
