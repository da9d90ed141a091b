"""What scripts print by hand, as tutorials do: a word for the step, its number, and the loss somewhere behind it.

::

    Epoch [1/10], Step [100/600], Loss: 0.2345
    Train Epoch: 1 [640/60000 (1%)]	Loss: 2.300039
    [1,  2000] loss: 2.177
    step 100 | train_loss 2.41 | 1234 samples/s

The number may be one of batches or of samples, within an epoch: it is taken as it stands. This counts only in a log
that has no other format.
"""

from .lines import lines

FORMAT = lines(
    "plain",
    "oss",
    r"(?i)(?:\b(?:global[_ ])?(?:step|iter|iteration|batch|update)(?:[:=#]| ?\[)? ?|\bepoch:? \d+ \[|^\[\d+, *)"
    r"(?P<step>\d{1,18})(?: ?/ ?(?P<total>\d{1,18})\b)?(?![\w.])[^\r\n]{0,160}?"
    r"(?<![a-z_])(?<!val )(?<!test )(?<!eval )(?<!valid )(?<!validation )"
    r"(?:train(?:ing)?[_ ])?loss(?:[:=]| [:=]|) ?(?P<loss>{n}){also}",
    also=[
        r"(?<![\w.])(?P<ms>{d}) ?ms\b(?! ?[=:])",
        r"(?<![\w.])(?P<tokens>{n}) ?tok(?:en)?s?/s(?:ec|econd)?(?![\w=:])",
        r"(?<![\w.])(?P<samples>{n}) ?(?:samples|examples|images|imgs?)/s(?:ec|econd)?(?![\w=:])",
    ],
    weak=True,
)
