"""Logs of training runs: step lines, notes and the way they ended, from a log of any size in bounded memory.

A format is one file here with a `FORMAT` in it (`format.py` says what that is) and one line in `FORMATS`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from ..step import Step
from ..usage import Throughput
from . import (
    clu,
    composer,
    deepspeed,
    deepspeed_chat,
    detectron2,
    epochs,
    espnet,
    fairseq,
    fairseq_simple,
    hf_trainer,
    imagenet,
    jsonlines,
    keras,
    keras3,
    keras_lines,
    keyvalue,
    levanter,
    lightning,
    lightning_rich,
    litgpt,
    llama2_c,
    llm_foundry,
    loss_first,
    maxtext,
    megatron,
    megatron_deepspeed,
    metriclogger,
    mmengine,
    mmengine_iter,
    moai,
    moai_trainer,
    modded_nanogpt,
    modded_timing,
    nanogpt,
    nanotron,
    nemo,
    neox,
    olmo,
    opennmt,
    plain,
    plain_device,
    progress,
    runtime,
    swin,
    table,
    timm,
    torchtitan,
    torchtitan_wps,
    torchtune,
    torchtune_metrics,
    tqdm,
    train_output,
    verl,
    yolo,
)
from .blocks import blocks
from .format import Format, Row
from .outcome import Evidence, Outcome
from .reading import Reading, rows_of
from .remarks import Remark
from .signs import CAUSES, Cause
from .tokens import gibibytes, in_tokens

__all__ = [
    "CAUSES",
    "FORMATS",
    "Cause",
    "Evidence",
    "Format",
    "Log",
    "Outcome",
    "Reading",
    "Remark",
    "Row",
    "read",
    "records",
    "summary",
]

FORMATS: tuple[Format, ...] = (
    moai.FORMAT,
    moai_trainer.FORMAT,
    torchtitan.FORMAT,
    torchtitan_wps.FORMAT,
    neox.FORMAT,
    megatron.FORMAT,
    megatron_deepspeed.FORMAT,
    nanotron.FORMAT,
    deepspeed_chat.FORMAT,
    nanogpt.FORMAT,
    llama2_c.FORMAT,
    modded_nanogpt.FORMAT,
    modded_timing.FORMAT,
    maxtext.FORMAT,
    levanter.FORMAT,
    litgpt.FORMAT,
    torchtune.FORMAT,
    torchtune_metrics.FORMAT,
    lightning.FORMAT,
    lightning_rich.FORMAT,
    nemo.FORMAT,
    metriclogger.FORMAT,
    imagenet.FORMAT,
    timm.FORMAT,
    swin.FORMAT,
    mmengine.FORMAT,
    mmengine_iter.FORMAT,
    detectron2.FORMAT,
    fairseq.FORMAT,
    fairseq_simple.FORMAT,
    keras.FORMAT,
    keras3.FORMAT,
    keras_lines.FORMAT,
    espnet.FORMAT,
    opennmt.FORMAT,
    yolo.FORMAT,
    clu.FORMAT,
    olmo.FORMAT,
    train_output.FORMAT,
    hf_trainer.FORMAT,
    verl.FORMAT,
    composer.FORMAT,
    llm_foundry.FORMAT,
    llm_foundry.BY_WORK,
    table.FORMAT,
    jsonlines.FORMAT,
    keyvalue.FORMAT,
    progress.FORMAT,
    plain_device.FORMAT,
    plain.FORMAT,
    loss_first.FORMAT,
    deepspeed.FORMAT,
    epochs.FORMAT,
    tqdm.FORMAT,
    runtime.FORMAT,
)
"""Tried in this order; the first that finds a step line in a log is that log's format."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """What a log says; what it does not say is None. Losses and rates are as printed, times in seconds."""

    name: str
    format: str | None = None
    records: int = 0
    """Step lines; a step that was printed twice counts twice."""
    first_step: int | None = None
    last_step: int | None = None
    """In the order of the file; after a step that went back it is less than `max_step`."""
    first_epoch: int | None = None
    last_epoch: int | None = None
    """Where the lines name epochs, all steps and their total are as printed: those within one."""
    max_step: int | None = None
    total_steps: int | None = None
    """The planned number of steps, where the lines say it."""
    loss_first: float | None = None
    loss_last: float | None = None
    loss_min: float | None = None
    nan_steps: int = 0
    restarts: int = 0
    """How often the step number went back, and no new epoch was why."""
    new_epochs: int = 0
    """How often the step number went back because a new epoch began."""
    first_seconds: float | None = None
    first_rate: float | None = None
    step_seconds: float | None = None
    """Median time of a step without the first record of each run."""
    throughput: Throughput | None = None
    tflops: float | None = None
    """Median 10^12 operations a second of one device, as logged."""
    mfu: float | None = None
    """Median part of a device's peak, as logged; 1.0 is all of it."""
    memory_gib: float | None = None
    """The most memory of one device, as logged."""
    tokens_per_second: Throughput | None = None
    """Rate in tokens where the log counts samples or steps and tells how many tokens these hold."""
    steady_records: int = 0
    elapsed_seconds: float | None = None
    """From the first to the last line that begins with a date and time."""
    notes: Mapping[str, str | float] = field(default_factory=dict)
    evidence: Evidence | None = None
    remarks: tuple[Remark, ...] = ()


def read(file: BinaryIO, name: str, formats: Sequence[Format] = FORMATS) -> Log:
    """What *file* says; *name* stands for it in the place of the evidence. Any bytes are a log, if an empty one.

    Of *formats* the first that finds a step line is taken. Raises RunError for a user's format that is too slow.
    """
    reading = Reading(name, formats)
    reading.read(file)
    return summary(reading)


def summary(reading: Reading) -> Log:
    """What the log of *reading* says, once all of it was read."""
    writers, notes = reading.writers, dict(reading.notes.found)
    format_, steps = writers.better() or (reading.format, writers.main)
    others = [(other.name, found.records) for other, found in writers.others.values() if other is not format_]
    if format_ is not reading.format and reading.format:
        others.append((reading.format.name, writers.records))
    if others:
        notes["other_formats"] = ", ".join(f"{other}: {count}" for other, count in others)
    if writers.logged > 1:
        notes["ranks_logged"] = writers.logged
    rate = steps.throughput(format_.scope if format_ else "total") or writers.rate_beside()
    seconds = steps.step_seconds(vague=format_ is not None and format_.vague)
    return Log(
        name=reading.name,
        format=format_.name if format_ else None,
        records=writers.records if format_ is reading.format else steps.records,
        first_step=steps.first_step,
        last_step=steps.last_step,
        max_step=steps.max_step,
        first_epoch=steps.first_epoch,
        last_epoch=steps.last_epoch,
        total_steps=steps.total_steps,
        loss_first=steps.loss_first,
        loss_last=steps.loss_last,
        loss_min=steps.loss_min,
        nan_steps=steps.nan_steps,
        restarts=steps.restarts,
        new_epochs=steps.new_epochs,
        first_seconds=steps.first_seconds,
        first_rate=steps.first_rate,
        step_seconds=seconds,
        throughput=rate,
        tflops=steps.tflops(),
        mfu=steps.mfu(),
        memory_gib=steps.memory_gib() or gibibytes(notes) or writers.memory_beside(),
        tokens_per_second=in_tokens(rate, seconds, notes),
        steady_records=steps.steady_records,
        elapsed_seconds=reading.notes.elapsed_seconds,
        notes=notes,
        evidence=reading.signs.best(writers.records),
        remarks=tuple(reading.remarks.found()),
    )


def records(file: BinaryIO, formats: Sequence[Format] = FORMATS) -> Iterator[Step]:
    """Every step line of *file* in its order, one by one."""
    format_: Format | None = None
    for block in blocks(file):
        format_, rows = rows_of(block.text, format_, formats)
        for row in rows:
            yield _step(Row(*row[:6]))


def _step(row: Row) -> Step:
    return Step(
        step=int(row.step) if row.step else None,
        total=int(row.total) if row.total else None,
        loss=float(row.loss) if row.loss else None,
        seconds=float(row.seconds) if row.seconds else None,
        rate=float(row.rate) if row.rate else None,
        unit=row.unit.decode() if row.unit else None,
    )
