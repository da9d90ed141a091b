"""What a script counts while it trains, such as rows, right answers and tokens, is counted over the global batch.

A rank has some rows of each batch. `x.size(0)` must be their number where it is a size, and the global batch's where
it is a number: `total += x.size(0)`, `loss.item() * len(x)`. So the tensors of a batch are of a class of their own
(`OfBatch`), which says both, and adds up over the ranks what the script counts with them.
"""

from .batch import KINDS, OfBatch, like_rows, mark, mark_outputs, plainly, share_of
from .size import Rows, length, teach
from .whole import OfAll, of_all

__all__ = [
    "KINDS",
    "OfAll",
    "OfBatch",
    "Rows",
    "length",
    "like_rows",
    "mark",
    "mark_outputs",
    "of_all",
    "plainly",
    "share_of",
    "teach",
]
