"""Lines of JSON, one object for each step, under the names that trainers use for their values.

::

    {"step": 10, "loss": 2.31, "tokens_per_second": 51234.5, "step_time": 0.4}
    {"event": "train", "global_step": 20, "train/loss": 2.25, "samples/sec": 12.5}

An object of evaluation (`eval_loss` without a `loss`) is no step.
"""

import json
from collections.abc import Mapping
from typing import Any

from .format import Format, Row

STEPS = (
    "step",
    "global_step",
    "iteration",
    "iter",
    "train/step",
    "train/global_step",
    "trainer/global_step",
    "_step",
    "current_steps",
)
_TOTALS = ("total_steps", "max_steps")
LOSSES = (
    "loss",
    "train_loss",
    "train/loss",
    "lm_loss",
    "lm loss",
    "training_loss",
    "train/CrossEntropyLoss",
    "total_loss",
    "train_loss_step",
    "train/loss_step",
    "loss_step",
)
TIMES = {
    "step_time": 1.0, "step_seconds": 1.0, "seconds_per_step": 1.0, "step_time_s": 1.0, "time_per_step": 1.0,
    "step_time_ms": 1e-3, "step_ms": 1e-3, "elapsed_time_per_iteration_ms": 1e-3,
}  # fmt: skip
RATES = {
    "tokens_per_second": b"tokens", "tokens_per_sec": b"tokens", "tokens/sec": b"tokens", "tokens/s": b"tokens",
    "tps": b"tokens", "train_tokens_per_second": b"tokens", "throughput/tokens_per_second": b"tokens",
    "samples_per_second": b"samples", "samples_per_sec": b"samples", "samples/sec": b"samples", "samples/s": b"samples",
    "train_samples_per_second": b"samples", "images_per_second": b"samples", "images/sec": b"samples",
}  # fmt: skip
_FACTORY = {"throughput": b"tokens"}
"""What LLaMA-Factory calls its rate, beside `current_steps`."""
_TFLOPS = ("tflops", "tflops_per_gpu", "tflops_per_device", "model_tflops_per_gpu")
_LONGEST = 1 << 16


def _rows(block: bytes) -> list[tuple[bytes, ...]]:
    lines = (
        line for line in block.splitlines() if b'{"' in line and line.rstrip()[-1:] == b"}" and len(line) < _LONGEST
    )
    return [row for line in lines if (row := _row(line[line.find(b'{"') :])) is not None]


def _row(line: bytes) -> Row | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row_of(found) if isinstance(found, dict) else None


def row_of(found: Mapping[str, Any], *, epochs: bool = False) -> Row | None:
    """The row of the values in *found*; with *epochs* also of one that tells of an epoch and of no step."""
    step, loss = _first(found, STEPS), _first(found, LOSSES)
    if step is None and not (epochs and "epoch" in found):
        return None
    if step is not None and not (step.is_integer() and 0 <= step < 1e18):
        return None
    rates = {**RATES, **_FACTORY} if "current_steps" in found else RATES
    rate = next((name for name in rates if _number(found, name) is not None), None)
    times = {**TIMES, "time": 1.0} if "data_time" in found else TIMES
    time = next((name for name in times if _number(found, name) is not None), None)
    if loss is None and rate is None and time is None:
        return None
    return Row(
        step=b"" if step is None else b"%d" % int(step),
        total=_whole(_first(found, _TOTALS)),
        loss=_bytes(loss),
        seconds=_bytes(_number(found, time), times[time]) if time else b"",
        rate=_bytes(_number(found, rate)) if rate else b"",
        unit=rates[rate] if rate else b"",
        tflops=_bytes(_first(found, _TFLOPS)),
        epoch=_whole(_number(found, "epoch")) if type(found.get("epoch")) is int else b"",
    )


def _first(found: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    return next((value for name in names if (value := _number(found, name)) is not None), None)


def _number(found: Mapping[str, Any], name: str) -> float | None:
    value = found.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return None


def _whole(value: float | None) -> bytes:
    return b"%d" % int(value) if value is not None and value.is_integer() and 0 <= value < 1e15 else b""


def _bytes(value: float | None, factor: float = 1.0) -> bytes:
    return b"" if value is None else repr(value * factor).encode()


FORMAT = Format(name="json-lines", mark=b'{"', rows=_rows)
