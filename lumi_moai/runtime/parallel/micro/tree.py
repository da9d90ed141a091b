"""Arguments of a model cut by rows, and its outputs put together again."""

from collections.abc import Sequence
from typing import Any

import torch

from ....errors import RequestError

Range = tuple[int, int]
"""First and end row of a piece."""
_WAY_OUT = "; use --layout micro_batches=1, with recompute=full or fsdp if memory is short"


def refusal(name: str, reason: str) -> RequestError:
    """The error for a model called *name* that cannot be computed in pieces."""
    return RequestError(f"{name} cannot be computed in micro-batches: {reason}{_WAY_OUT}")


def is_tensor(leaf: Any) -> bool:
    """Whether *leaf* is a tensor with rows."""
    return isinstance(leaf, torch.Tensor) and leaf.dim() > 0


def rows_of(leaves: Sequence[Any], wanted: int | None) -> int | None:
    """The rows that the arguments *leaves* share: those of the batch at hand, where its rows are known.

    None when no tensor has them.
    """
    lengths = [leaf.shape[0] for leaf in leaves if is_tensor(leaf)]
    if wanted is None:
        return lengths[0] if lengths else None
    return wanted if wanted in lengths else None


def ranges(rows: int, pieces: int) -> tuple[Range, ...]:
    """*rows* in *pieces* that follow each other; the first ones take the rest."""
    base, rest = divmod(rows, pieces)
    ends = [base * (piece + 1) + min(piece + 1, rest) for piece in range(pieces)]
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def halves(piece: Range) -> tuple[Range, ...]:
    """The two halves of *piece*."""
    start, end = piece
    return tuple((start + first, start + last) for first, last in ranges(end - start, 2))


def joined(parts: Sequence[Any], pieces: Sequence[Range], name: str) -> Any:
    """One output of a model from those of its pieces; numbers are averaged with the pieces' rows.

    Raises RequestError for an output that has no rows.
    """
    first = parts[0]
    if not isinstance(first, torch.Tensor):
        if any(type(part) is not type(first) or part != first for part in parts[1:]):
            raise refusal(name, f"it returns a {type(first).__name__} that differs from piece to piece")
        return first
    if first.dim() == 0:
        return _mean(parts, pieces, name)
    for part, (start, end) in zip(parts, pieces, strict=True):
        if part.dim() == 0 or part.shape[0] != end - start or part.shape[1:] != first.shape[1:]:
            raise refusal(name, f"of {end - start} rows it makes an output of shape {tuple(part.shape)}, not as many")
    return torch.cat(list(parts))


def _mean(parts: Sequence[torch.Tensor], pieces: Sequence[Range], name: str) -> torch.Tensor:
    if not parts[0].is_floating_point():
        raise refusal(name, "it returns a whole number for the batch, which may be a sum or not")
    return torch.stack([part * weight for part, weight in zip(parts, weights(pieces), strict=True)]).sum(0)


def weights(pieces: Sequence[Range]) -> list[float]:
    """The part of all rows that each piece has."""
    rows = pieces[-1][1]
    return [(end - start) / rows for start, end in pieces]
