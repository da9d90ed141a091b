"""A table of steps folded into the summary that rows are folded into, to the same result."""

import numpy as np

from .steps import Steps
from .vector import Array, Table


def fold(steps: Steps, table: Table, *, warm: bool = False) -> None:
    """Fold *table* into *steps*, as `Steps.add` would its rows."""
    numbers = table.steps
    if not len(numbers):
        return
    epochs = table.column("epoch")
    begins = _begins(steps, numbers, epochs)
    first = steps.is_new
    restarts = max(0, len(begins) - first)
    steps.restarts += restarts
    _epochs(steps, epochs[~np.isnan(epochs)], numbers, restarts)
    _count(steps, table, numbers[numbers >= 0])
    _losses(steps, table.losses)
    rates = table.column("rate")
    steps.unit = steps.unit or table.unit
    columns = [table.column("seconds"), rates if table.unit == steps.unit else rates[:0], *_of_device(steps, table)]
    if len(begins) and not warm:
        if first:
            steps.first_record(*(_text(column, int(begins[0])) for column in columns[:2]))
        columns = [np.delete(column, begins) if len(column) else column for column in columns]
    for quantiles, column in zip(steps.quantiles, columns, strict=True):
        quantiles.add_array(column)


def _begins(steps: Steps, numbers: Array, epochs: Array) -> Array:
    """Places in *numbers* at which a run begins; a line without a step tells of none."""
    counts = len(epochs) > 0 and not np.isnan(epochs).any()
    if (numbers < 0).any() and not counts:
        places = np.flatnonzero(numbers >= 0)
        return places[_begins(steps, numbers[places], epochs[:0])] if len(places) else places
    numbers = np.maximum(numbers, 0) if counts else numbers
    before = numbers[0] if steps.last_step is None and not counts else steps.last_step or 0
    back = np.diff(numbers, prepend=before) < 0
    if counts:
        last = epochs[0] if steps.is_new else -1 if steps.last_epoch is None else steps.last_epoch
        on = np.diff(epochs, prepend=last)
        back = (on < 0) | (back & (on == 0))
        back[0] &= not steps.is_new
    places = np.flatnonzero(back)
    return np.concatenate([[0], places]) if (steps.is_new if counts else steps.last_step is None) else places


def _epochs(steps: Steps, epochs: Array, numbers: Array, restarts: int) -> None:
    if len(epochs):
        before = numbers[0] if steps.last_step is None else steps.last_step
        steps.new_epochs += max(0, int(np.count_nonzero(np.diff(numbers, prepend=before) < 0)) - restarts)
        steps.first_epoch = int(epochs[0]) if steps.first_epoch is None else steps.first_epoch
        steps.last_epoch = int(epochs[-1])


def _count(steps: Steps, table: Table, numbers: Array) -> None:
    steps.records += len(table.steps)
    if len(numbers):
        steps.first_step = int(numbers[0]) if steps.first_step is None else steps.first_step
        steps.last_step = int(numbers[-1])
        steps.max_step = max(int(numbers.max()), -1 if steps.max_step is None else steps.max_step)
    steps.total_steps = steps.total_steps if table.total is None else table.total


def _losses(steps: Steps, losses: Array) -> None:
    if not len(losses):
        return
    steps.loss_first = float(losses[0]) if steps.loss_first is None else steps.loss_first
    steps.loss_last = float(losses[-1])
    numbers = losses[~np.isnan(losses)]
    steps.nan_steps += len(losses) - len(numbers)
    if len(numbers):
        least = float(numbers.min())
        steps.loss_min = least if steps.loss_min is None else min(least, steps.loss_min)


def _of_device(steps: Steps, table: Table) -> list[Array]:
    """What one device did; its memory counts from the first record on."""
    memory = table.column("memory_gib")
    held = memory[~np.isnan(memory)]
    if len(held):
        steps.memory = max(steps.memory, float(held.max()))
    return [table.column("tflops"), table.column("mfu")]


def _text(column: Array, place: int) -> bytes:
    """A value as `Steps` gets them, in the writing that gives the same number."""
    value = float(column[place]) if len(column) else np.nan
    return b"" if np.isnan(value) else repr(value).encode()
