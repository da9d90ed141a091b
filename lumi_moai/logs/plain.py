"""What scripts print by hand, as tutorials do: a word for the step, its number, and the loss somewhere behind it.

::

    Epoch [1/10], Step [100/600], Loss: 0.2345
    Train Epoch: 1 [640/60000 (1%)]	Loss: 2.300039
    [1,  2000] loss: 2.177
    [100/600] loss: 2.177
    step 100 | train_loss 2.41 | 1234 samples/s | tokens/s: 5.5k

The number may be one of batches or of samples, within an epoch: it is taken as it stands, and the epoch in front of it
tells a new epoch from a restart. This counts only in a log that has no other format.
"""

from .lines import lines

_SIGN = r"(?: ?[:=#]? ?\[| ?[:=#])? {0,9}"
_WORD = r"(?:steps?|iter|iteration|batch|update)" + _SIGN
_FRACTION = (
    r"(?<!epoch)(?<!epoch[ :])(?<!epoch: )(?<!test: )(?<!val: )(?<!eval: )(?<!test )(?<!val )(?<!eval )"
    r"\[ *(?=\d+ ?/ ?\d+\][ :,|-]{0,4}(?:train(?:ing)?[_ ])?loss)"
)
TOKENS = r"tok(?:en)?s?(?:/| per |_per_)s(?:ec|econd)?"
_SAMPLES = r"(?:samples?|examples?|images?|imgs?)(?:/| per |_per_)s(?:ec|econd)?"


def rate(unit: str, group: str) -> str:
    """A rate with its *unit* behind or in front of the number."""
    ahead = rf"(?<![\w.])(?={{n}} ?{unit}(?![\w=:/]))"
    return rf"(?:{ahead}|(?<![\w/]){unit}(?: ?[:=] ?| ))(?P<{group}>{{n}})"


RATES = (rate(TOKENS, "tokens"), rate(_SAMPLES, "samples"))
PATTERN = (
    r"(?i)(?:(?:(^\[)|\bepochs?" + _SIGN + r")(?P<epoch>\d{1,9})"
    r"(?(1), *|(?:(?: ?/ ?\d{1,9})?\]? \[ *|(?![\w.])[^\r\n]{0,40}?(?<!global.)\b" + _WORD + "))"
    r"|(?<!eval )(?<!val )(?<!test )(?<!valid )(?<!validation )\b(?:global[_ ])?" + _WORD + r"|" + _FRACTION + r")"
    r"(?P<step>\d{1,3}(?:,\d{3})+(?![\d,])|\d{1,18})"
    r"(?: ?/ ?(?P<total>\d{1,18})\b)?(?![\w.]|: train loss [^,\r\n]*, val loss )[^\r\n]{0,160}?"
    r"(?<![a-z_])(?<!val )(?<!test )(?<!eval )(?<!valid )(?<!validation )"
    r"(?:train(?:ing)?[_ ]|total[_ ]|step[_ ])?loss(?:[:=]| [:=]| is|) {0,3}(?P<loss>{n}){also}"
)
ALSO = (
    r"(?<![\w.])(?P<ms>{d}) ?ms\b(?! ?[=:])",
    r"(?:(?<![\w.])(?={d} ?s(?:ec)?/(?:step|it|iter|batch)\b)|\btime \(s\): )(?P<seconds>{d})",
    r"(?:(?<![\w.])(?={d} ?%(?: \w+){0,2} mfu\b)|\bmfu:? )(?P<mfu_percent>{d})(?![\w.])",
)
FORMAT = lines("plain", "oss", PATTERN, also=[*ALSO, *RATES], weak=True, vague=True, reach=400)
