"""In a batch that the ranks cannot share out equally, they make sure that all of them are at the same thing.

A script that computes a loss, or reads a number, for each row by itself does so more often on a rank with more rows.
The ranks would wait for each other without end, or mistake one sum for another.
"""

from enum import IntEnum

import torch

from ...errors import RequestError
from .. import group
from .share import Share
from .transforming import is_transforming

Doing = IntEnum("Doing", ["call", "loss", "value", "number", "backward", "batch"])
"""What the ranks do together."""
_WORDS = {
    Doing.call: "calls a model",
    Doing.loss: "computes a loss",
    Doing.value: "asks for the value of a loss",
    Doing.number: "reads a number",
    Doing.backward: "goes back from a loss",
    Doing.batch: "asks for a batch",
}


def check(share: Share | None, doing: Doing) -> None:
    """This rank, which has *share* of the batch, is *doing* something that all ranks do together.

    Raises RequestError when another rank is at something else.
    """
    if share is None or not share.uneven or torch.compiler.is_compiling() or is_transforming():
        return
    found = group.gathered(doing)
    if len(set(found)) > 1:
        other = next(each for each in found if each != found[0])
        first, second = map(words, (found[0], other))
        raise RequestError(
            f"in a batch of {share.total} rows on {share.ranks} ranks, one rank {first} where another {second}: the"
            " script does so for each row or piece of the batch, and ranks have unequal numbers of rows; compute all"
            " rows in one call, or take batches that the ranks share out equally (DataLoader(drop_last=True))"
        )


def words(number: float) -> str:
    """What a rank is at that sent *number*; one that is none of `Doing` was meant for another exchange."""
    return next((said for doing, said in _WORDS.items() if doing == number), "exchanges something else")
