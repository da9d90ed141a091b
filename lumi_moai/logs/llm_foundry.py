"""LLM Foundry, and Composer where it logs a block for each batch; batches count within an epoch if one is named.

::

    [batch=1/300000000]:
"""

from .lines import lines

_BELOW = r"(?=(?:(?![^\r\n]*\[(?:batch|token|sample)=)[^\r\n]*\r?\n){1,80}?[^\r\n\[]* %s: %s)?"
_VALUES = (
    r"[^\S\r\n]*\r?\n(?:(?![^\r\n]*\[(?:batch|token|sample)=)[^\r\n]*\r?\n){0,80}?"
    r"[^\r\n\[]*\bloss/train/total: (?P<loss>{n})"
    + _BELOW % ("throughput/samples_per_sec", "(?P<samples>{n})")
    + _BELOW % ("throughput/tokens_per_sec", "(?P<tokens>{n})")
    + _BELOW % ("throughput/device/mfu", "(?P<mfu>{n})")
)

FORMAT = lines(
    "llm-foundry",
    "[batch=",
    r"(?:\[epoch=(?P<epoch>\d+)\])?\[batch=(?P<step>\d+)(?:/(?P<total>\d+))?\]:" + _VALUES,
    one_line=False,
)
BY_WORK = lines(
    "llm-foundry",
    " time/batch: ",
    r"\[(?:token|sample)=\d+/\d+\]:[^\S\r\n]*\r?\n(?:(?![^\r\n]*\[(?:batch|token|sample)=)[^\r\n]*\r?\n){0,20}?"
    r"[^\r\n\[]* time/batch: (?P<step>\d+)" + _VALUES,
    one_line=False,
)
"""A training whose length is one of tokens or samples; its batches count from 0."""
