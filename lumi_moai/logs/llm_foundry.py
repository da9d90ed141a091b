"""LLM Foundry, and Composer where it logs a block for each batch.

::

    [batch=1/300000000]:
"""

from .lines import lines

FORMAT = lines(
    "llm-foundry",
    "[batch=",
    r"\[batch=(?P<step>\d+)/(?P<total>\d+)\]:[^\S\r\n]*\r?\n(?:(?![^\r\n]*\[batch=)[^\r\n]*\r?\n){0,80}?"
    r"[^\r\n\[]*\bloss/train/total: (?P<loss>{n})"
    r"(?=(?:(?![^\r\n]*\[batch=)[^\r\n]*\r?\n){1,80}?[^\r\n\[]* throughput/samples_per_sec: (?P<samples>{n}))?"
    r"(?=(?:(?![^\r\n]*\[batch=)[^\r\n]*\r?\n){1,80}?[^\r\n\[]* throughput/tokens_per_sec: (?P<tokens>{n}))?"
    r"(?=(?:(?![^\r\n]*\[batch=)[^\r\n]*\r?\n){1,80}?[^\r\n\[]* throughput/device/mfu: (?P<mfu>{n}))?",
    one_line=False,
)
