"""A batch sampler that gives a rank's part of each batch."""

import dataclasses
import fcntl
import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate

from ...errors import RequestError
from .share import Origin, Share, cut


@dataclass(frozen=True, kw_only=True)
class OfDataset(Origin):
    """Rows of a data set that can be asked for each of them."""

    dataset: Any

    def samples(self, keys: Sequence) -> list[Any]:
        """Those of *keys*, asked for as torch's loader asks."""
        at_once = getattr(self.dataset, "__getitems__", None)
        return list(at_once(keys)) if at_once else [self.dataset[key] for key in keys]

    @property
    def owners(self) -> tuple[Any, ...]:
        """The data set, and the collate function."""
        return self.dataset, self.collate


class CutBatches:
    """The parts, of which `asked` says how they were cut; whole batches once `take_whole` was called."""

    def __init__(self, loader: DataLoader, rank: int, ranks: int) -> None:
        # Not the loader itself, which is forgotten when the script does so.
        self.batches: Iterable = loader.batch_sampler
        self._origin = _origin_of(loader)
        self.rank = rank
        self.ranks = ranks
        self.is_whole = False
        self.asked: deque[Share] = deque()
        """Of the batches that the loader was asked for, and may still be fetching."""
        self.keys: Sequence = ()
        """Of the rank's part of a batch, in the data set."""

    def __iter__(self) -> Iterator[Sequence]:
        self.asked.clear()
        for batch in self.batches:
            keys = _as_sequence(batch)
            part, share = cut(keys, self.rank, self.ranks)
            origin = self._origin and self._origin(keys=part, every=keys)
            share = dataclasses.replace(share, fingerprint=fingerprint(keys), origin=origin, is_whole=self.is_whole)
            self.asked.append(share)
            self.keys = part
            yield keys if self.is_whole else part

    def of(self, batch: Any) -> tuple[Any, Share]:
        """The *batch* that was fetched just now, and how it was cut."""
        return batch, self.asked.popleft()

    def take_whole(self) -> None:
        """Give all of each batch from now on, for this rank to put it together as one device does."""
        self.is_whole = True

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]


def _origin_of(loader: DataLoader) -> Callable[..., OfDataset] | None:
    """Of some rows of *loader*; None where it does not pad, or its samples cannot be asked for here."""
    if loader.collate_fn is default_collate or (loader.num_workers == 1 and _has_open_files()):
        return None
    return partial(OfDataset, dataset=loader.dataset, collate=loader.collate_fn)


def _has_open_files() -> bool:
    """Whether this process may share its place in a file with a worker; a script with several workers does not."""
    try:
        mapped = Path("/proc/self/maps").read_text()
        return any(_is_read(place, mapped) for place in Path("/proc/self/fd").iterdir())
    except OSError:
        return True


def _is_read(descriptor: Path, mapped: str) -> bool:
    try:
        mode, name = descriptor.stat().st_mode, str(descriptor.readlink())
        way = fcntl.fcntl(int(descriptor.name), fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:  # closed by now, as that of the folder itself
        return False
    # What is mapped into memory is read there, without a place.
    return stat.S_ISREG(mode) and way != os.O_WRONLY and int(descriptor.name) > 2 and name not in mapped


def fingerprint(keys: Any) -> int:
    """A number for *keys*, which another order does not have; the number of rows where they are no numbers."""
    if torch.is_tensor(keys):
        keys = keys.tolist()
    # Python's hash of numbers does not change from process to process.
    return hash(tuple(keys)) if all(isinstance(key, int) for key in keys) else len(keys)


def _as_sequence(batch: Any) -> Sequence:
    if isinstance(batch, Sequence) or torch.is_tensor(batch):
        return batch
    try:
        return list(batch)
    except TypeError:
        raise RequestError(
            f"a batch sampler gave a {type(batch).__name__}, which cannot be shared out; let it give lists of indices"
        ) from None
