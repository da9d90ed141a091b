"""A collate function that puts together a rank's part of the samples of a stream, which every rank reads."""

import contextlib
import dataclasses
import pickle
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, default_collate

from . import mixed_rows
from .own_chance import Fetching, OwnChance
from .share import Origin, Share, cut


@dataclass(frozen=True, kw_only=True)
class OfStream(Origin):
    """Rows of samples that came by."""

    packed: bytes = dataclasses.field(repr=False)
    """All samples of the batch, as they were before the collate function had them."""

    def samples(self, keys: Sequence) -> list[Any]:
        """Those at the places *keys*."""
        every = pickle.loads(self.packed)  # noqa: S301, which this job packed
        return [every[key] for key in keys]

    @property
    def owners(self) -> tuple[Any, ...]:
        """The collate function."""
        return (self.collate,)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A batch and how it was cut, on its way from a worker process."""

    batch: Any
    share: Share
    packed: bytes | None = None
    """The samples, as long as they may be asked for again."""

    def pin_memory(self) -> "Counted":
        """Pinned as the bare batch would be."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return dataclasses.replace(self, batch=pin_memory(self.batch))


class CutStream:
    """The collate function; runs in the worker processes, where there are some."""

    keys: Sequence = ()

    def __init__(self, loader: DataLoader, rank: int, ranks: int, is_asked_again: Callable[[], bool]) -> None:
        """*is_asked_again*: whether whole batches may still be wanted of samples that came by."""
        self.own = loader.collate_fn
        self.collate = Fetching(self.own, OwnChance(rank), self.own)
        self.rank = rank
        self.ranks = ranks
        self._is_whole = torch.zeros(1, dtype=torch.bool, device="cpu")
        self._packs = torch.zeros(1, dtype=torch.bool, device="cpu")
        """Whether batches keep their samples."""
        self._is_asked_again = is_asked_again
        self._look_ahead()
        if loader.num_workers:
            self._is_whole.share_memory_()  # with the workers
            self._packs.share_memory_()
        self._is_mixed: bool | None = None
        """Whether the function makes a row of several samples; None ahead of the first batch of its process."""

    def __call__(self, samples: Sequence) -> Counted:
        """The collated part, or all where rows are mixed, and once `take_whole` was called."""
        if self._is_mixed is None:
            self._is_mixed = self.own is not default_collate and mixed_rows.are_made_by(self.own, samples)
        part, share = cut(samples, self.rank, self.ranks)
        is_whole = self._is_mixed or bool(self._is_whole)
        packed = None if is_whole else self._packed(samples)
        share = dataclasses.replace(share, fingerprint=_look(samples[0]), is_whole=is_whole)
        collate = self.own if self._is_mixed else self.collate
        return Counted(batch=collate(samples if is_whole else part), share=share, packed=packed)

    def _packed(self, samples: Sequence) -> bytes | None:
        if not self._packs:
            return None
        with contextlib.suppress(Exception):  # BLE001, on purpose: a sample of any kind may not be packed
            return pickle.dumps(list(samples))
        return None

    def __getstate__(self) -> dict[str, Any]:
        """What a worker process that is not forked gets, which asks nobody."""
        return {**self.__dict__, "_is_asked_again": None}

    def of(self, counted: Counted) -> tuple[Any, Share]:
        """The batch that was fetched just now, and how it was cut."""
        self._look_ahead()
        return counted.batch, dataclasses.replace(counted.share, origin=self._origin(counted))

    def _look_ahead(self) -> None:
        self._packs.fill_(self.own is not default_collate and self._is_asked_again())

    def _origin(self, counted: Counted) -> OfStream | None:
        if counted.packed is None:
            return None
        every = range(counted.share.total)
        keys = cut(every, self.rank, self.ranks)[0]
        # The function itself, which may be a lambda, cannot come from a worker.
        return OfStream(packed=counted.packed, collate=self.own, keys=keys, every=every)

    def take_whole(self) -> None:
        """Put all of each batch together from now on, as one device does."""
        self._is_whole.fill_(True)


def _look(sample: Any) -> int:
    """A number for what *sample* begins with."""
    parts = [part.reshape(-1)[:8].tolist() if torch.is_tensor(part) else part for part in tree_leaves(sample)]
    return zlib.crc32(repr([part for part in parts if isinstance(part, (str, int, float, list))]).encode())
