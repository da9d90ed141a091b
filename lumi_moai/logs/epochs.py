"""What scripts print by hand once an epoch: its number and the loss of the training, whatever else stands in the line.

::

    Epoch 5: train loss 0.31 val loss 0.4
    Epoch 5/10 - loss: 0.3
    ====> Epoch: 5 Average loss: 164.13

A record without a step: the line does not say how many there were. This counts only in a log that has no steps.
"""

from .lines import lines

FORMAT = lines(
    "epochs",
    "oss",
    r"(?i)^(?![^\r\n]*%\|)(?![^\r\n]{0,60}\b(?:val|valid|validation|test|eval|evaluation)\b[^\r\n]{0,20}epoch)[^\r\n]{0,80}?"
    r"(?<![/\w])epoch(?: ?[:=#]? ?\[| ?[:=#])? *(?P<epoch>\d{1,9})(?: ?/ ?\d{1,9}\b)?(?![\w.])[^\r\n]{0,160}?"
    r"(?<![a-z_])(?<!val )(?<!test )(?<!eval )(?<!valid )(?<!validation )"
    r"(?:train(?:ing)?[_ ])?(?:avg |average |mean )?loss(?:[:=]| [:=]|) *(?P<loss>{n}){also}",
    also=[r"(?<![\w.])(?P<samples>{n}) ?(?:samples|examples|images|imgs?)/s(?:ec|econd)?(?![\w=:])"],
    weak=True,
)
