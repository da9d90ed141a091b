"""Every DataLoader of the script hands each rank its share of the global batch.

All ranks draw the same indices, in the order in which one device would draw them, and each loads only its own rows of
every batch. `len(loader)`, `loader.batch_size` and the dataset stay what the script made them.
"""

import copy
import dataclasses
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset

from ...errors import RequestError
from .own_chance import Fetching, OwnChance, OwnSeeds
from .parts import leaves, some_rows
from .share import Origin, Share, bounds, cut

Begin = Callable[[Share | None, Any], None]
"""Told at each batch how it was cut, None for a batch that every rank has whole, and the batch."""


class CutBatches:
    """A batch sampler that gives a rank's part of each batch, and keeps in `shares` what the parts weigh."""

    def __init__(
        self, batches: Iterable[Sequence], rank: int, ranks: int, origin: Callable[..., Origin] | None = None
    ) -> None:
        self.batches = batches
        self.rank = rank
        self.ranks = ranks
        self.origin = origin
        self.shares: deque[Share] = deque()
        self.keys: Sequence = ()
        """Of the rank's part of a batch, in the data set."""

    def __iter__(self) -> Iterator[Sequence]:
        self.shares.clear()
        for batch in self.batches:
            indices = _as_sequence(batch)
            part, share = cut(indices, self.rank, self.ranks)
            origin = self.origin and self.origin(indices=part)
            self.shares.append(dataclasses.replace(share, fingerprint=fingerprint(indices), origin=origin))
            self.keys = part
            yield part

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]


class Counted:
    """A batch and what it weighs, on its way from a worker process."""

    def __init__(self, batch: Any, share: Share) -> None:
        self.batch = batch
        self.share = share

    def pin_memory(self) -> "Counted":
        """Pinned as the bare batch would be."""
        from torch.utils.data._utils.pin_memory import pin_memory

        return Counted(pin_memory(self.batch), self.share)


class CutCollate:
    """A collate function that sees only a rank's part of the samples; runs in the worker processes."""

    def __init__(self, collate: Callable[[Any], Any], rank: int, ranks: int) -> None:
        self.collate = Fetching(collate, OwnChance(rank), collate)
        self.rank = rank
        self.ranks = ranks

    def __call__(self, samples: Sequence) -> Counted:
        """The collated part."""
        part, share = cut(samples, self.rank, self.ranks)
        return Counted(self.collate(part), dataclasses.replace(share, fingerprint=_look(samples[0])))


_FETCHING: list[int] = []
"""The threads in which a loader fetches a batch or starts its workers, which know of it from then on."""


@contextmanager
def fetching() -> Iterator[None]:
    """Within this a loader is at work for the batch to come: what its data set does is for none at hand."""
    mine = threading.get_ident()
    _FETCHING.append(mine)
    try:
        yield
    finally:
        _FETCHING.remove(mine)


def is_fetching() -> bool:
    """Whether this thread, or this worker process, fetches a batch."""
    return bool(_FETCHING) and threading.get_ident() in _FETCHING


class Batches:
    """The iterator that the script gets: its batches, each announced before it is handed out."""

    def __init__(
        self,
        batches: Callable[[], Iterator],
        weigh: Callable[[Any], tuple[Any, Share | None]],
        begin: Begin,
        end: Callable[[], None] = lambda: None,
    ) -> None:
        with fetching():
            self.batches = batches()
        self.weigh = weigh
        self.begin = begin
        self.end = end

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        try:
            with fetching():
                fetched = next(self.batches)
        except StopIteration:
            self.end()
            raise
        batch, share = self.weigh(fetched)
        self.begin(share, batch)
        return batch

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)


class Cutter:
    """Makes the shares of one rank."""

    def __init__(self, rank: int, ranks: int, end: Callable[[], None]) -> None:
        self.rank = rank
        self.ranks = ranks
        self.end = end
        self._kept: WeakKeyDictionary[DataLoader, DataLoader] = WeakKeyDictionary()
        self._cut: WeakKeyDictionary[DataLoader, CutBatches] = WeakKeyDictionary()
        self._chance = OwnChance(rank)

    def whole(self, loader: DataLoader, batches: Callable[[DataLoader], Iterator], begin: Begin) -> Batches:
        """The batches of *loader* as they are, for evaluation; *batches* is DataLoader's own `__iter__`."""
        return Batches(partial(batches, loader), lambda batch: (batch, None), begin)

    def shares(self, loader: DataLoader, batches: Callable[[DataLoader], Iterator], begin: Begin) -> Batches:
        """This rank's part of the batches of *loader*; *batches* is DataLoader's own `__iter__`."""
        if loader.batch_sampler is None:
            return Batches(partial(batches, loader), self._cut_tensors, begin, self.end)
        mine = self._kept.get(loader) or self._copy(loader)
        if loader.persistent_workers and loader.num_workers > 0:
            self._kept[loader] = mine  # with its workers
        if isinstance(mine.collate_fn, CutCollate):
            return Batches(partial(batches, mine), lambda counted: (counted.batch, counted.share), begin, self.end)
        sampler: Any = mine.batch_sampler
        found = Batches(partial(batches, mine), lambda batch: (batch, sampler.shares.popleft()), begin, self.end)
        if loader.num_workers == 0 and (fetcher := getattr(found.batches, "_dataset_fetcher", None)) is not None:
            fetcher.fetch = Fetching(fetcher.fetch, self._chance, loader.dataset, loader.collate_fn)
        return found

    def keys(self, loader: DataLoader) -> list[Any]:
        """Those of some rows of *loader* in its data set; none where it has none."""
        found = self._cut.get(loader)
        return [] if found is None else list(found.keys)

    def _copy(self, loader: DataLoader) -> DataLoader:
        """*loader* with its batches cut; a copy, because the script's own must keep its length and its sampler."""
        mine = copy.copy(loader)
        # Through __dict__: DataLoader forbids to change these on a finished one.
        if isinstance(loader.dataset, IterableDataset):
            mine.__dict__["collate_fn"] = CutCollate(loader.collate_fn, self.rank, self.ranks)
            return mine
        if not getattr(loader, "in_order", True):
            raise RequestError("a DataLoader with in_order=False cannot be cut over ranks; leave in_order out")
        # A single worker may read from a file that is open here, too, and whose place the two would share.
        known = loader.num_workers != 1
        origin = partial(Origin, dataset=loader.dataset, collate=loader.collate_fn) if known else None
        self._cut[loader] = CutBatches(loader.batch_sampler, self.rank, self.ranks, origin)
        mine.__dict__["batch_sampler"] = self._cut[loader]
        mine.__dict__["worker_init_fn"] = OwnSeeds(self.rank, loader.worker_init_fn, loader.collate_fn)
        return mine

    def _cut_tensors(self, batch: Any) -> tuple[Any, Share]:
        """The part of a batch that the dataset itself put together."""
        lengths = {len(part) for part in leaves(batch)}
        if len(lengths) != 1:
            raise RequestError(
                "a DataLoader with batch_size=None gave a batch whose parts have different lengths, so its rows cannot"
                " be shared out; give a batch_size, or parts of one length"
            )
        start, end, share = bounds(lengths.pop(), self.rank, self.ranks)
        return some_rows(batch, start, end), share


def generators(loader: DataLoader) -> list[torch.Generator]:
    """The random generators of its own that *loader* draws from."""
    owners = (loader, loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(generator): generator for generator in found if generator is not None}.values())


def fingerprint(indices: Any) -> int:
    """A number for *indices*, which another order does not have; the number of rows where they are no numbers."""
    if torch.is_tensor(indices):
        indices = indices.tolist()
    # Python's hash of numbers does not change from process to process.
    return hash(tuple(indices)) if all(isinstance(index, int) for index in indices) else len(indices)


def _look(sample: Any) -> int:
    """A number for what *sample* begins with."""
    parts = [part.reshape(-1)[:8].tolist() if torch.is_tensor(part) else part for part in tree_leaves(sample)]
    return zlib.crc32(repr([part for part in parts if isinstance(part, (str, int, float, list))]).encode())


def _as_sequence(batch: Any) -> Sequence:
    if isinstance(batch, Sequence) or torch.is_tensor(batch):
        return batch
    try:
        return list(batch)
    except TypeError:
        raise RequestError(
            f"a batch sampler gave a {type(batch).__name__}, which cannot be shared out; let it give lists of indices"
        ) from None
