"""PyTorch's ImageNet example and what was copied from it: values of the last batch, in brackets the means.

::

    Epoch: [0][  10/5005]	Time  0.51 (  1.20)	Data  0.01 (  0.30)	Loss 6.9100e+00 (6.9300e+00)	Acc@1   0.00
"""

from .lines import lines

FORMAT = lines(
    "pytorch-imagenet",
    "Epoch: [",
    r"\bEpoch: \[(?P<epoch>\d+)\]\[ *(?P<step>\d+)/(?P<total>\d+)\][\s,]+Time:? +(?P<seconds>{n}) [^\r\n]*?"
    r"\bLoss:? +(?P<loss>{n}) \(",
)
