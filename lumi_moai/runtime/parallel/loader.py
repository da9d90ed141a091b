"""Every DataLoader of the script hands each rank its share of the global batch.

All ranks draw the same indices, in the order in which one device would draw them, and each loads only its own rows of
every batch. `len(loader)`, `loader.batch_size` and the dataset stay what the script made them.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch.utils.data import DataLoader, IterableDataset

from ...errors import RequestError
from .counts import scope, states
from .cut_batches import CutBatches
from .cut_stream import CutStream
from .fetching import fetching
from .own_chance import Fetching, OwnChance, OwnSeeds
from .parts import leaves, some_rows
from .place import Place
from .share import Share, bounds

Begin = Callable[[Share | None, Any], Any]
"""Given how a batch was cut, None for one that every rank has whole, and the batch, it gives what to hand out."""


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
        scope.note_loop(sys._getframe(1))
        return self.begin(share, batch)

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.batches, name)


def whole(loader: DataLoader, batches: Callable[[DataLoader], Iterator], begin: Begin) -> Batches:
    """The batches of *loader* as they are, for evaluation; *batches* is DataLoader's own `__iter__`."""
    return Batches(partial(batches, loader), _as_it_is, begin)


def _as_it_is(batch: Any) -> tuple[Any, None]:
    states.forget_widths()
    return batch, None


class Cutter:
    """Makes the shares of the rank that has *place*.

    *turned* brings the rows of a loader's batch into the first dimension, and back; *mixed* tells whether the collate
    function of a loader makes a row of several samples, *is_asked_again* whether samples may still be fetched again.
    """

    def __init__(
        self,
        place: Place,
        end: Callable[[], None],
        turned: Callable[[DataLoader, Any], Any],
        mixed: Callable[[DataLoader], bool],
        is_asked_again: Callable[[DataLoader | None], bool],
    ) -> None:
        self.rank = place.data_rank
        self.ranks = place.data_ranks
        self.end = end
        self.turned = turned
        self.mixed = mixed
        self.is_asked_again = is_asked_again
        self._kept: WeakKeyDictionary[DataLoader, DataLoader] = WeakKeyDictionary()
        self._cut: WeakKeyDictionary[DataLoader, CutBatches | CutStream] = WeakKeyDictionary()
        """What handed out the last batch of each."""
        self._whole: WeakSet[DataLoader] = WeakSet()
        """Those of which whole batches are fetched."""
        self._mixed: WeakSet[DataLoader] = WeakSet()
        """Those of them whose rows are mixed, with the random numbers of one device."""
        self._chance = OwnChance(self.rank)

    def shares(self, loader: DataLoader, batches: Callable[[DataLoader], Iterator], begin: Begin) -> Batches:
        """This rank's part of the batches of *loader*; *batches* is DataLoader's own `__iter__`."""
        if loader.batch_sampler is None:
            return Batches(partial(batches, loader), self._cut_tensors, begin, self.end)
        mine = self._kept.get(loader) or self._copy(loader)
        if loader.persistent_workers and loader.num_workers > 0:
            self._kept[loader] = mine  # with its workers
        is_stream = isinstance(loader.dataset, IterableDataset)
        cut: Any = mine.collate_fn if is_stream else mine.batch_sampler
        found = Batches(partial(batches, mine), partial(self._own_rows, loader, cut), begin, self.end)
        if is_stream or loader in self._mixed:
            return found
        if loader.num_workers == 0 and (fetcher := getattr(found.batches, "_dataset_fetcher", None)) is not None:
            fetcher.fetch = Fetching(fetcher.fetch, self._chance, loader.dataset, loader.collate_fn)
        return found

    def keys(self, loader: DataLoader) -> list[Any]:
        """Those of some rows of *loader* in its data set; none where it has none."""
        found = self._cut.get(loader)
        return [] if found is None else list(found.keys)

    def as_one_device(self, loader: DataLoader, batch: Any, share: Share) -> Any:
        """This rank's rows as one device puts them together; *batch*, cut as *share* says, is what it made of them.

        From then on *loader* fetches whole batches. Raises RequestError where the samples cannot be had again.
        """
        cut = self._cut.get(loader)
        if cut is None or share.is_whole:
            return batch
        origin = share.origin
        if origin is None:
            raise RequestError(
                "the result depends on how far rows are padded, and a batch whose samples cannot be fetched again was"
                " filled up to its rank's longest row; pad all batches to one length, or mask the padding"
            )
        self._whole.add(loader)
        cut.take_whole()
        with fetching():
            return self._taken(loader, origin.collate(origin.samples(origin.every)), share)

    def _own_rows(self, loader: DataLoader, cut: CutBatches | CutStream, fetched: Any) -> tuple[Any, Share]:
        self._cut[loader] = cut  # which may have several iterators at a time
        batch, share = cut.of(fetched)
        return self._taken(loader, batch, share) if share.is_whole else batch, share

    def _taken(self, loader: DataLoader, whole: Any, share: Share) -> Any:
        turned = self.turned(loader, whole)
        if {len(part) for part in leaves(turned)} != {share.total}:
            raise RequestError(
                f"a collate function gave a batch of {share.total} samples whose parts have other lengths, so its rows"
                " cannot be told; let it give one row for each sample"
            )
        start, end, _ = bounds(share.total, self.rank, self.ranks)
        mine = some_rows(turned, start, end)
        states.note_widths(_longest(turned, mine))
        return self.turned(loader, mine)

    def _copy(self, loader: DataLoader) -> DataLoader:
        """*loader* with its batches cut; a copy, because the script's own must keep its length and its sampler."""
        mine = copy.copy(loader)
        cut: CutBatches | CutStream
        # Through __dict__: DataLoader forbids to change these on a finished one.
        if isinstance(loader.dataset, IterableDataset):
            cut = mine.__dict__["collate_fn"] = CutStream(loader, self.rank, self.ranks, self._asked_again(loader))
        else:
            if not getattr(loader, "in_order", True):
                raise RequestError("a DataLoader with in_order=False cannot be cut over ranks; leave in_order out")
            cut = mine.__dict__["batch_sampler"] = CutBatches(loader, self.rank, self.ranks)
            if self.mixed(loader):
                self._mixed.add(loader)
                self._whole.add(loader)
            else:
                mine.__dict__["worker_init_fn"] = OwnSeeds(self.rank, loader.worker_init_fn, loader.collate_fn)
        if loader in self._whole:
            cut.take_whole()
        return mine

    def _asked_again(self, loader: DataLoader) -> Callable[[], bool]:
        its = ref(loader)  # which is forgotten when the script does so
        return lambda: self.is_asked_again(its())

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


def _longest(whole: Any, mine: Any) -> Iterator[tuple[int, int]]:
    """Of each part of a batch with a whole number for each row, which may be how long it is: *mine*, and of all."""
    for each, own in zip(leaves(whole), leaves(mine), strict=True):
        if isinstance(each, torch.Tensor) and each.dim() == 1 and not each.is_floating_point() and len(own):
            yield int(own.max()), int(each.max())
        elif isinstance(each, list) and own and all(type(size) is int for size in each):
            yield max(own), max(each)


def generators(loader: DataLoader) -> list[torch.Generator]:
    """The random generators of its own that *loader* draws from."""
    owners = (loader, loader.sampler, getattr(loader.batch_sampler, "sampler", None))
    found = [getattr(owner, "generator", None) for owner in owners]
    return list({id(generator): generator for generator in found if generator is not None}.values())
