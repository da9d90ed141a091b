"""Two readings of one log, of its parts one after the other, as the reading of the whole."""

from dataclasses import replace
from functools import partial

from .outcome import Evidence, Signs
from .reading import Reading
from .remarks import Remarks
from .steps import Steps


def merge(first: Reading, second: Reading) -> None:
    """Add to *first* what *second* read in the part behind it, which it began by `Reading.go_on`."""
    _signs(first.signs, second.signs, first)
    _remarks(first.remarks, second.remarks, first.lines)
    for rank, steps in second.writers.ranks.items():
        _steps(first.writers.of(rank), steps)
    for format_, steps in second.writers.others.values():
        _steps(first.writers.of_other(format_), steps)
    first.notes.go_on(second.notes)
    first.lines += second.lines


def _steps(first: Steps, second: Steps) -> None:
    first.records += second.records
    first.restarts += second.restarts
    first.new_epochs += second.new_epochs
    first.nan_steps += second.nan_steps
    first.first_epoch = second.first_epoch if first.first_epoch is None else first.first_epoch
    first.loss_first = second.loss_first if first.loss_first is None else first.loss_first
    for name in ("last_step", "last_epoch", "total_steps", "last_progress", "loss_last"):
        if getattr(second, name) is not None:
            setattr(first, name, getattr(second, name))
    first.max_step = max((step for step in (first.max_step, second.max_step) if step is not None), default=None)
    first.loss_min = min((loss for loss in (first.loss_min, second.loss_min) if loss is not None), default=None)
    first.memory = max(first.memory, second.memory)
    first.unit = first.unit or second.unit
    for own, others in zip(first.quantiles, second.quantiles, strict=True):
        own.merge(others)


def _signs(first: Signs, second: Signs, before: Reading) -> None:
    first.first_rank = first.first_rank if second.first_rank is None else second.first_rank
    for at, evidence in second.taken:
        moved = replace(evidence, place=_moved(evidence.place, before.lines))
        first.weigh(moved.outcome, moved.weight, at + before.writers.records, partial(_same, moved))


def _same(evidence: Evidence) -> Evidence:
    return evidence


def _remarks(first: Remarks, second: Remarks, lines: int) -> None:
    first.fast = first.fast or second.fast
    if first.slow is None and second.slow is not None:
        first.slow = replace(second.slow, place=_moved(second.slow.place, lines))


def _moved(place: str, lines: int) -> str:
    """`file:line` so many *lines* further down."""
    name, _, line = place.rpartition(":")
    return f"{name}:{int(line) + lines}"
