"""Sentences in the log about what a script does with the rows of a batch, and no rank can put right."""

import re
from collections.abc import Callable

from ..share import Share

SAY: list[Callable[[str, str], None]] = []
"""Says a sentence, on the rank that talks and once for each topic."""
STACKED = (
    "the script stacks the rows of a batch that are in a list: torch's losses of them are those of all rows, but"
    " what it adds up or counts of them by hand is this rank's part; stacked in the collate function they are followed"
)
ONE_BY_ONE = (
    "the script goes through the rows of a batch one by one before backward(): each rank goes through its own, so what"
    " Python counts or adds up there is this rank's part; count with len(x) or on the tensors, or behind backward()"
)

ARRAY = (
    "the script takes a list or an array of the rows of a batch before backward(): it has this rank's rows, so what"
    " Python, numpy or a dictionary looks up, counts or adds up by it is this rank's part; look up in a tensor"
    " (weights[y]), which is followed, or behind backward()"
)
UNKNOWN = (
    "what {name} gives for the rows of a batch is not followed: each rank has that of its own rows, and so is what the"
    " script adds up, counts or prints of it"
)
KINDS = (
    "the script asks whether type(...) is a list or a tuple (line {line} of {file}), so the lists of a batch stay"
    " plain: what it keeps, counts or prints of their entries is this rank's part; with isinstance(names, list) it is"
    " that of all rows"
)
READ = {"unbind": ("one by one", ONE_BY_ONE), **dict.fromkeys(("tolist", "numpy", "array"), ("array", ARRAY))}
"""What is said, by what the script reads the rows with, and its topic."""


def say(topic: str, sentence: str) -> None:
    """Say *sentence*, if anybody listens."""
    for each in SAY:
        each(topic, sentence)


def explain(error: Exception, share: Share | None) -> None:
    """Say in *error* what may be wrong where sizes do not fit: the script's own tensors for a batch, of all its rows.

    *share*: how the batch at hand was cut.
    """
    if share is None or share.rows == share.total or getattr(error, "__notes__", None):
        return
    if {str(max(share.rows, 1)), str(share.total)} <= set(re.findall(r"\d+", str(error))):
        error.add_note(
            f"lumi-moai: this rank has {share.rows} of the batch's {share.total} rows. Make a tensor that goes with"
            " rows as long as they are, `torch.zeros(x.size(0), 8)`, not as long as the batch size"
        )
