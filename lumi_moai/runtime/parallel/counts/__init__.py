"""What a script counts while it trains, such as rows, right answers and tokens, is counted over the global batch.

A rank has some rows of each batch. `x.size(0)` must be their number where it is a size, and the global batch's where
it is a number: `total += x.size(0)`, `loss.item() * len(x)`. So the tensors of a batch are of a class of their own
(`OfBatch`), which says both, and adds up over the ranks what the script counts with them. What a model
makes of them is of that class too.

batch     the tensors of a batch, and what becomes of them
given     which tensors a batch has, and what models are given and give
whole     numbers that all ranks share, such as a loss
size      a number of rows
names     what the functions of torch do with rows
places    in which dimension the rows are
states    which tensors of a model are states of recurrent layers
lists     lists of a batch with an entry for each row
entries   what the script gets for them
picking   some of the rows
by_place  some of the rows by their place
pieces    such rows, put together again
felt      numbers of all rows in what is computed for some
writing   rows that are written by their place
ranged    places that the script counts through
taught    `len`, `range` and `enumerate` for the script
drawn     what numpy drew for the rows
constants what the script made for as many rows as the batch has
tables    what the script takes of its own for as many
mapped    rows that `vmap` goes through
helped    what a library made of rows for the script
reducing  sums, means and extremes over rows
rows      the rows of all ranks in one tensor, and gradients that the script asks for them
said      sentences about what cannot be put right
logged    which rows are read for a log
flow      where a value goes in the script's source
scope     what binds the names of a function there
source    what that source says
users     which code is the user's own
"""

from . import drawn, states, tables
from .batch import (
    KINDS,
    OfBatch,
    are_of_all,
    are_picked,
    become,
    fitting,
    keeping,
    like_rows,
    part_of,
    refusing,
    rows_like,
    share_of,
    whole,
)
from .by_place import wholly
from .constants import own_rows
from .given import Given, find_rows, followed, mark, mark_outputs, mark_whole, plainly
from .mapped import mapping
from .places import PICKED
from .rows import among_all, picked_rows
from .said import explain
from .size import Rows, of_all_ranks
from .taught import length, teach
from .whole import OfAll, OfModel, counted, name_of, of_all

__all__ = [
    "KINDS",
    "PICKED",
    "Given",
    "OfAll",
    "OfBatch",
    "OfModel",
    "Rows",
    "among_all",
    "are_of_all",
    "are_picked",
    "become",
    "counted",
    "drawn",
    "explain",
    "find_rows",
    "fitting",
    "followed",
    "keeping",
    "length",
    "like_rows",
    "mapping",
    "mark",
    "mark_outputs",
    "mark_whole",
    "name_of",
    "of_all",
    "of_all_ranks",
    "own_rows",
    "part_of",
    "picked_rows",
    "plainly",
    "refusing",
    "rows_like",
    "share_of",
    "states",
    "tables",
    "teach",
    "whole",
    "wholly",
]
