"""Losses inside a model that is computed in pieces: their sums and counts are over all pieces, and over all ranks.

In the first pass each loss is its piece's own mean, and sums and counts are noted. Then they are added up, once, and
whenever a piece is computed again its losses have the global value, and the gradient of the piece's own sum.
"""

from collections.abc import Sequence
from typing import Any

import torch

from ... import group
from .. import alike, losses, marks
from ..share import Share

_ALONE = Share(rows=1, total=1, ranks=1)


class Sums:
    """The losses within one call of a model."""

    def __init__(self, share: Share | None, *, is_whole: bool) -> None:
        self.share = share or _ALONE
        self._is_cut = share is not None
        self._is_whole = is_whole
        """Whether there is one piece, whose losses are the rank's at once."""
        self._known: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        """Value and divisor of each loss."""
        self._found: list[list[torch.Tensor]] = []
        self._is_sum: list[bool] = []
        self._made: list[list[torch.Tensor]] = []
        self._place = 0
        self._weight = 1.0

    @property
    def has_loss(self) -> bool:
        """Whether the model computed a loss."""
        return bool(self._known)

    def begin(self, weight: float) -> None:
        """A piece that has *weight* of the rank's rows is about to be computed."""
        self._place, self._weight = 0, weight
        if self._known is None:
            self._found.append([])
            self._made.append([])

    def __call__(self, own: torch.Tensor, count: Any) -> torch.Tensor:
        """A loss in the piece: its sum *own*, and *count*, which is None where the script asked for the sum."""
        found = self._next(own, count)
        if found is None:
            return self._note(own, count)
        value, factor = found
        return marks.mark(losses.OfAllRanks.apply(own, value, factor))

    def value_and_factor(self, own: torch.Tensor, count: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The value of a loss in the piece, and what the gradient of its sum *own* is multiplied by."""
        found = self._next(own, count)
        if found is not None:
            return found
        value = self._note(own, count)
        return value.double(), torch.zeros_like(value, dtype=torch.float64)  # nobody goes back from it

    def _next(self, own: torch.Tensor, count: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Value and factor of the next loss; None while the sums are not known."""
        place, self._place = self._place, self._place + 1
        if self._is_whole and (self._known is None or place == len(self._known)):
            self._known = [*(self._known or []), self._of_all(_numbers(own, count), is_sum=count is None)]
        if self._known is None:
            return None
        value, divisor = self._known[place]
        weight = self.share.weight * self._weight
        return value, torch.zeros_like(divisor) if self.share.rows == 0 else 1 / (divisor * weight)

    def _note(self, own: torch.Tensor, count: Any) -> torch.Tensor:
        numbers = _numbers(own, count)
        with torch.no_grad():
            value = (numbers[0] / numbers[1]).to(own.dtype)
        self._found[-1].append(numbers)
        self._made[-1].append(value)
        self._is_sum.append(count is None)
        return value

    def settle(self) -> bool:
        """Add up what the pieces had; False when the model has no loss inside. The ranks come here together."""
        if len({len(found) for found in self._found}) > 1:
            raise ValueError("the pieces of one batch did not compute the same losses")
        if not self._found[0]:
            return False
        mine = torch.stack([torch.stack(found) for found in self._found]).sum(0)
        self._known = [self._of_all(each, is_sum=is_sum) for each, is_sum in zip(mine, self._is_sum, strict=False)]
        return True

    def _of_all(self, numbers: torch.Tensor, *, is_sum: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Value and divisor of a loss whose sum and count on this rank are *numbers*."""
        if self._is_cut:
            alike.check(self.share, alike.Doing.loss)  # as a rank does whose only row leaves nothing to cut
            numbers = group.total(numbers if self.share.rows else torch.zeros_like(numbers))
        own, count = numbers
        divisor = torch.ones_like(count) if is_sum else count
        return own / divisor, divisor

    def value_of(self, parts: Sequence[Any]) -> torch.Tensor | None:
        """The global value of an output whose *parts* are one of the losses themselves; None for another one."""
        for place in range(len(self._made[0])):
            if all(part is made[place] for part, made in zip(parts, self._made, strict=True)):
                return self._known[place][0] if self._known else None
        return None

    def let_go(self) -> None:
        """Keep no longer what only the first pass needs."""
        self._made = [[]]


def _numbers(own: torch.Tensor, count: Any) -> torch.Tensor:
    """Sum and count of a loss, without a graph."""
    with torch.no_grad():
        counts = own.new_ones(()) if count is None else torch.as_tensor(count, device=own.device)
        return torch.stack([own.double(), counts.double()])
