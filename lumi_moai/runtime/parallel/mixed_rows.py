"""Whether a collate function makes a row of a batch out of several samples: mixup, negatives out of the batch.

Such a one must be given the samples of the global batch, as on one device: of a rank's it would mix among these alone.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch.utils._pytree import tree_map
from torch.utils.data import DataLoader, default_collate

from ...errors import RequestError
from .fetching import fetching
from .own_chance import Fetching, OwnChance, untouched
from .parts import leaves
from .selfcheck.snapshot import Snapshot

_SAMPLES = 8
"""That are collated, half of which are then others."""
_TRIES = 32
"""With other random numbers each time, since a batch may happen not to be mixed."""
_Collate = Callable[[Any], Any]


def are_in(loader: DataLoader) -> bool:
    """Whether the batches of *loader*, whose samples have numbers, have such rows; False where that cannot be told."""
    if loader.collate_fn is default_collate:
        return False
    found = _is_made_by(loader.collate_fn, _samples(loader, _SAMPLES))
    size = getattr(loader.batch_sampler, "batch_size", None)
    if found is None and isinstance(size, int):
        return _wants_all(loader.collate_fn, _samples(loader, size))
    return bool(found)


def _samples(loader: DataLoader, count: int) -> Sequence[Any]:
    """The first *count* of the data set of *loader*; none where they cannot be had."""
    before = Snapshot([loader.dataset], [])
    try:
        with fetching(), untouched(loader.dataset):
            return [loader.dataset[key] for key in range(min(count, len(loader.dataset)))]
    except Exception:  # BLE001, on purpose: the script's own code may raise anything, and may do so again in its loop
        return []
    finally:
        with suppress(RequestError):  # a large tensor of the data set's own, in which it keeps what was fetched
            before.put_back()


def are_made_by(collate: _Collate, samples: Sequence[Any]) -> bool:
    """Whether *collate* makes such rows, tried with some of *samples*, a batch; nothing of it stays."""
    found = _is_made_by(collate, samples)
    return _wants_all(collate, samples) if found is None else found


def _is_made_by(collate: _Collate, samples: Sequence[Any]) -> bool | None:
    """The same; None where *collate* raises an error for so few."""
    before = Snapshot([collate], [])
    try:
        with fetching(), untouched(collate):
            return _are_made(collate, before, samples[:_SAMPLES])
    except Exception:  # BLE001, on purpose, as above
        return None
    finally:
        before.put_back()


def _wants_all(collate: _Collate, samples: Sequence[Any]) -> bool:
    """Whether *collate*, which takes no few samples, gives a row for each of *samples*, a whole batch.

    Whatever it does with them, of whole batches each rank's rows are those of one device.
    """
    before = Snapshot([collate], [])
    try:
        with fetching(), untouched(collate):
            _, made = _tried(collate, before, 0, samples)
            return bool(samples) and _have_rows(made, len(samples))
    except Exception:  # BLE001, on purpose, as above
        return False
    finally:
        before.put_back()


def _are_made(collate: _Collate, before: Snapshot, samples: Sequence[Any]) -> bool:
    half = len(samples) // 2
    if half < 2:
        return False
    others = [*samples[:half], *(_turned(each) for each in (*samples[half + 1 :], samples[half]))]
    # Of another number as well: a list of pictures may have as many as a picture has channels. Some want an even one.
    draws, first, again, fewer = _tried(collate, before, 0, samples, samples, samples[:-2])
    if not (
        _have_rows(first, len(samples)) and _have_rows(fewer, len(samples) - 2) and _same(first, again, len(samples))
    ):
        return False
    for number in range(_TRIES if draws else 1):
        _, first, unlike = _tried(collate, before, number, samples, others)
        if not _same(first, unlike, half):
            return _have_same_widths(first, unlike)
    return False


def _tried(collate: _Collate, before: Snapshot, number: int, *every: Sequence[Any]) -> tuple[Any, ...]:
    """Whether *collate* draws, and what it makes of each, with the same random numbers, another stream a *number*."""
    made, draws = [], False
    for samples in every:
        doing = Fetching(collate, OwnChance(number), collate)
        with untouched(collate):
            made.append(doing(copy.deepcopy(samples)))
        before.put_back()
        draws |= doing.draws
    return draws, *made


def _turned(sample: Any) -> Any:
    """*sample* with its values back to front, so as long as it was."""
    return tree_map(lambda part: part.flip(-1) if torch.is_tensor(part) and part.dim() else part, sample)


def _have_rows(batch: Any, rows: int) -> bool:
    try:
        return {len(part) for part in leaves(batch)} == {rows}
    except RequestError:
        return False


def _have_same_widths(first: Any, other: Any) -> bool:
    """Where they do not, rows were filled up, which each rank may do by itself."""
    return [getattr(each, "shape", None) for each in leaves(first)] == [
        getattr(each, "shape", None) for each in leaves(other)
    ]


def _same(first: Any, other: Any, rows: int) -> bool:
    """Whether the first *rows* of two batches are the same."""
    pairs = list(zip(leaves(first), leaves(other), strict=True))
    return all(_equal(mine[:rows], yours[:rows]) for mine, yours in pairs)


def _equal(mine: Any, yours: Any) -> bool:
    if torch.is_tensor(mine):
        return mine.shape == yours.shape and torch.equal(torch.nan_to_num(mine), torch.nan_to_num(yours))
    return bool((mine == yours).all()) if hasattr(mine, "all") else mine == yours
