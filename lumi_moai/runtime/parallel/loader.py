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
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset

from ...errors import RequestError
from .own_chance import Fetching, OwnChance, OwnSeeds
from .parts import leaves, some_rows
from .share import Origin, Share, bounds, cut

Begin = Callable[[Share | None, Any], Any]
"""Given how a batch was cut, None for one that every rank has whole, and the batch, it gives what to hand out."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A batch that a loader was asked for, and may still be fetching."""

    share: Share
    indices: Sequence
    """Of the global batch."""
    is_whole: bool
    """Whether all of its rows are fetched here, or this rank's."""


class CutBatches:
    """A batch sampler that gives a rank's part of each batch, and keeps in `asked` what the parts weigh.

    Once `is_whole` it gives all of a batch, for this rank to put it together as one device would.
    """

    def __init__(
        self, batches: Iterable[Sequence], rank: int, ranks: int, origin: Callable[..., Origin] | None = None
    ) -> None:
        self.batches = batches
        self.rank = rank
        self.ranks = ranks
        self.origin = origin
        self.is_whole = False
        self.asked: deque[Asked] = deque()
        self.at_hand: Asked | None = None
        """The last one that was fetched."""
        self.keys: Sequence = ()
        """Of the rank's part of a batch, in the data set."""

    def __iter__(self) -> Iterator[Sequence]:
        self.asked.clear()
        for batch in self.batches:
            indices = _as_sequence(batch)
            part, share = cut(indices, self.rank, self.ranks)
            origin = self.origin and self.origin(indices=part)
            share = dataclasses.replace(share, fingerprint=fingerprint(indices), origin=origin)
            self.asked.append(Asked(share=share, indices=indices, is_whole=self.is_whole))
            self.keys = part
            yield indices if self.is_whole else part

    def fetched(self) -> Asked:
        """What the batch is that was fetched just now."""
        self.at_hand = self.asked.popleft()
        return self.at_hand

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
        return self.begin(share, batch)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)


class Cutter:
    """Makes the shares of one rank; *turned* brings the rows of a loader's batch into the first dimension, and back."""

    def __init__(
        self,
        rank: int,
        ranks: int,
        end: Callable[[], None],
        turned: Callable[[DataLoader, Any], Any] = lambda _, batch: batch,
    ) -> None:
        self.rank = rank
        self.ranks = ranks
        self.end = end
        self.turned = turned
        self._kept: WeakKeyDictionary[DataLoader, DataLoader] = WeakKeyDictionary()
        self._cut: WeakKeyDictionary[DataLoader, CutBatches] = WeakKeyDictionary()
        self._whole: WeakSet[DataLoader] = WeakSet()
        """Those of which whole batches are fetched."""
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
        found = Batches(partial(batches, mine), partial(self._own_rows, loader, sampler), begin, self.end)
        if loader.num_workers == 0 and (fetcher := getattr(found.batches, "_dataset_fetcher", None)) is not None:
            fetcher.fetch = Fetching(fetcher.fetch, self._chance, loader.dataset, loader.collate_fn)
        return found

    def keys(self, loader: DataLoader) -> list[Any]:
        """Those of some rows of *loader* in its data set; none where it has none."""
        found = self._cut.get(loader)
        return [] if found is None else list(found.keys)

    def as_one_device(self, loader: DataLoader, batch: Any) -> Any:
        """This rank's rows as one device puts them together; *batch* is what the rank itself made of them.

        From then on *loader* fetches whole batches. One whose samples cannot be fetched a second time stays as it is.
        """
        cut = self._cut.get(loader)
        asked = cut.at_hand if cut else None
        if cut is None or asked is None or asked.is_whole or not cut.origin:
            return batch
        self._whole.add(loader)
        cut.is_whole = True
        with fetching():
            return self._taken(loader, loader.collate_fn(fetched(loader.dataset, asked.indices)), asked.share)

    def _own_rows(self, loader: DataLoader, sampler: CutBatches, batch: Any) -> tuple[Any, Share]:
        asked = sampler.fetched()
        return self._taken(loader, batch, asked.share) if asked.is_whole else batch, asked.share

    def _taken(self, loader: DataLoader, whole: Any, share: Share) -> Any:
        turned = self.turned(loader, whole)
        if {len(part) for part in leaves(turned)} != {share.total}:
            raise RequestError(
                f"a collate function gave a batch of {share.total} samples whose parts have other lengths, so its rows"
                " cannot be told; let it give one row for each sample"
            )
        start, end, _ = bounds(share.total, self.rank, self.ranks)
        return self.turned(loader, some_rows(turned, start, end))

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
        self._cut[loader].is_whole = loader in self._whole
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


def fetched(dataset: Any, indices: Sequence) -> list[Any]:
    """The samples of *indices*, asked for as torch's loader asks."""
    at_once = getattr(dataset, "__getitems__", None)
    return list(at_once(indices)) if at_once else [dataset[index] for index in indices]


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
