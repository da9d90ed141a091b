"""Which batch the script is at: a training batch of which each rank has its rows, or one that every rank has whole.

A script may evaluate between fetching a training batch and computing it, or after the last one; what it computes then
is no part of that batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakValueDictionary

import torch

from ...errors import RequestError
from .counts import Given
from .fetching import is_fetching
from .share import Share


class AtHand:
    """The batches that the script has been handed."""

    def __init__(self, trains: Callable[[], bool]) -> None:
        self.trains = trains
        """Whether the script's models are in training mode."""
        self.pending: set[Share] = set()
        """Of the training batches handed out since the last backward."""
        self._handed: list[Share] = []
        """The same, one by one."""
        self.loss_share: Share | None = None
        """Of the batch that the last loss came from: the script may fetch the next batch before backward."""
        self._with_loss: list[Share] = []
        """Those of them for which a loss was computed."""
        self._given_out: WeakValueDictionary[int, Share] = WeakValueDictionary()
        """Of all training batches that the script may still have, by identity."""
        self._cut: Share | None = None
        self._called: Share | None = None
        """Of the rows that a model is computing."""
        self._is_of_all = False
        """Whether a model is computing rows that all ranks have: the first ones of a batch, one by itself."""
        self.inside: Share | None = None
        """Of the rows that a model is computing of a batch that no loader gave."""
        self._is_whole = False
        self._is_over = False
        self._went_back: bool | None = None
        """Whether a backward followed in this loop; None before its first batch."""
        self._has_gradients = False
        """Whether a backward followed the last step of an optimizer."""

    @property
    def share(self) -> Share | None:
        """This rank's part of what the script computes now; None when every rank computes all of it."""
        if self.inside is not None:
            return self.inside
        if self._is_of_all or is_fetching():
            return None
        if self._called is not None:  # which need not be the batch that was fetched last
            return self._called
        if self._is_whole:
            return self._cut if self.pending and torch.is_grad_enabled() and self.trains() else None
        if self._is_over and not self.pending and not torch.is_grad_enabled():
            # A script that fetches a batch ahead is yet to compute the last one.
            return self._cut if self._handed and self._handed[-1] is self._cut else None
        return self._cut

    @property
    def is_computing(self) -> bool:
        """Whether a model is: what it is given says no more of which batch it is."""
        return self._called is not None or self.inside is not None

    @contextmanager
    def computing(self, given: Given) -> Iterator[None]:
        """Within this a model computes what it was *given*: rows of a batch, also of one kept from training."""
        before = self._called, self._is_of_all
        self.turn_to(given.parts[0].share if given.parts else None)
        self._called = given.parts[0].share if given.parts else self._called
        self._is_of_all |= bool(given.of_all)
        try:
            yield
        finally:
            self._called, self._is_of_all = before

    def turn_to(self, share: Share | None) -> None:
        """The script is about to compute rows of a batch that was cut as *share* says.

        It may have kept that (`itertools.cycle(loader)`, `list(loader)`), and looked at whole batches since.
        """
        if share is None or not self._is_whole or self.pending or self._given_out.get(id(share)) is not share:
            return
        if torch.is_grad_enabled() and self.trains():
            share.went_back.clear()
            self._cut, self._is_whole = share, False
            self._handed.append(share)

    def share_of(self, own: Share | None) -> Share | None:
        """How the rows were cut that are drawn or computed now, if any; *own* as a tensor or a size tells it."""
        self.turn_to(own)
        share = self.share
        return share if share is None or share is self.inside else own or share

    @property
    def rows(self) -> int:
        """Those of the last training batch, on all ranks together."""
        return self._cut.total if self._cut is not None else 0

    def begin_loop(self) -> None:
        """A training loop begins.

        Raises RequestError when the last one went through all its batches without a backward.
        """
        if self._went_back is False and self._is_over:
            raise RequestError(
                "a loop over a DataLoader ran no backward, and each rank saw its part of the data only; if it"
                " evaluates or counts, put it under torch.no_grad() or after model.eval(), where every rank sees all"
            )
        self.pending.clear()
        self._handed.clear()
        self._with_loss.clear()
        self._went_back = None

    @property
    def fetched(self) -> Share | None:
        """How the last batch that was handed out was cut; None for a whole one."""
        return None if self._is_whole else self._cut

    def begin(self, share: Share | None) -> None:
        """A batch is handed out, cut as *share* says; None for a whole one."""
        if self.loss_share is not None and self.loss_share.went_back:  # it was a number to show
            self.loss_share, self._with_loss = None, []
        self._is_whole = share is None
        if share is not None:
            self._cut, self._is_over = share, False
            self.pending.add(share)
            self._given_out[id(share)] = share
            self._handed.append(share)
            self._went_back = bool(self._went_back)

    def note_loss(self, share: Share) -> None:
        """The next backward is for the batch that was cut as *share* says.

        Behind the backward of a batch it may be a second loss of it, or a number to show.
        """
        if not share.went_back or self.loss_share is None or self.loss_share.went_back:
            self.loss_share = share
            self._with_loss.append(share)

    def end(self) -> None:
        """A training loop has no more batches."""
        self._is_over = True

    def went_back(self, *, is_exact: bool, ranks: int) -> None:
        """A backward begins; *is_exact* says that torch's own loss functions made its loss.

        Raises RequestError when the script has fetched batches that weigh differently since the last backward: a loss
        written by hand does not tell which of them it came from.
        """
        unlike = len({share.uneven for share in self.pending}) > 1
        if unlike and not (is_exact and all(share.total >= share.ranks for share in self.pending)):
            totals = ", ".join(str(share.total) for share in sorted(self.pending, key=lambda share: share.total))
            raise RequestError(
                f"the script fetched batches of {totals} rows before one backward, and they cannot all be shared out"
                f" equally over {ranks} ranks; give DataLoader(drop_last=True), or fetch a batch after backward"
            )
        self.pending.clear()
        over = self._with_loss or self._handed
        for share in over:
            share.went_back.append(True)
        self._handed = [each for each in self._handed if not each.went_back]
        self.loss_share, self._with_loss = None, []
        self._went_back = True
        self._has_gradients = True

    def check_step(self, optimizer: torch.optim.Optimizer) -> None:
        """*optimizer* is about to step.

        Raises RequestError when no backward in this loop computed the gradients: they are of this rank's rows only.
        """
        made_by_hand = self._went_back is False and not self._has_gradients
        self._has_gradients = False
        weights = (each for entry in optimizer.param_groups for each in entry["params"])
        if made_by_hand and any(each.grad is not None for each in weights):
            raise RequestError(
                "an optimizer is to step with gradients that no backward computed (torch.func, or written by hand),"
                " which are of this rank's rows only; call loss.backward(), or run it on one device"
            )
