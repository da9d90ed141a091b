"""How fast the training is: a line in the log now and then, over all devices; the last one is kept in the run folder.

A measurement covers the optimizer steps between two lines. The device is waited for at the lines only, so a measured
duration is true and the steps between are not slowed down. The first step, which compiles and warms up, stands apart.
"""

import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from ...plan import Plan
from ...step import Step, format_step
from .. import accelerator
from ..meeting import write_json
from .share import Share

_FIRST_LINES = (1, 10)
_SECONDS = 30.0
"""Between two lines later on."""
_COUNTED_STEP = 1
"""The step, from 0 on, whose operations are counted: the first one may trace or compile."""
_PLAUSIBLE = 0.65
"""No training reaches more of a device's dense peak; whoever measures more has measured something else."""
_OF_COUNTER = r"Using `torch.compile\(module\)` when there are global hooks"
"""What torch says of the counter's own hooks, which the script did not make."""
_BACKWARD = 2
"""A backward does twice the operations of its forward."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """The steps from one line to the next, over all devices of the job."""

    step: int
    steps: int
    """How many the measurement covers."""
    seconds: float
    """Of all of them."""
    rows: int
    tokens: int
    """0 where the batches hold no tokens."""
    memory_gib: float
    """The most that this device has held; where the CPU stands in, the process."""
    flops: float | None = None
    """Floating-point operations a second a device, of the model's forward and backward; recomputing does not count."""
    peak_flops: float | None = None

    @property
    def mfu(self) -> float | None:
        """The part of the device's peak that the model's operations are."""
        return self.flops / self.peak_flops if self.flops and self.peak_flops else None

    @property
    def is_plausible(self) -> bool:
        """Whether a device can have done this."""
        return self.mfu is None or self.mfu <= _PLAUSIBLE

    @property
    def line(self) -> str:
        """For the log; the first part is a step line like any other."""
        unit, amount = ("tokens", self.tokens) if self.tokens else ("samples", self.rows)
        rate = amount / self.seconds if amount else None
        logged = Step(step=self.step, seconds=self.seconds / self.steps, rate=rate, unit=unit)
        parts = [format_step(logged), f"Memory: {self.memory_gib:.2f} GiB"]
        if self.mfu is not None:
            parts.append(f"MFU: {100 * self.mfu:.1f} %")
        if not self.is_plausible:
            parts.append(f"implausible: above {100 * _PLAUSIBLE:.0f} % of the device's peak, not kept")
        return " | ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """For `RUN/measured.json`."""
        return {
            "schema": 1,
            "step": self.step,
            "steps": self.steps,
            "step_seconds": self.seconds / self.steps,
            "samples_per_second": self.rows / self.seconds if self.rows else None,
            "tokens_per_second": self.tokens / self.seconds if self.tokens else None,
            "memory_gib": self.memory_gib,
            "mfu": self.mfu,
        }


class Meter:
    """Counts what this rank trains; rank 0 says it."""

    def __init__(
        self, run: Path, rank: int, peaks: Mapping[str, float], say: Callable[[str], None] | None = None
    ) -> None:
        self.run = run
        self.rank = rank
        self.peaks = peaks
        self.say = say or _say
        self.plan = Plan()
        """Set when the plan is chosen."""
        self.step = 0
        """Optimizer steps of this start so far."""
        self.before = 0
        """Those of earlier starts, which this one has repeated."""
        self.batch = 0
        """Rows of the last batch, over all ranks; 0 where there is none with rows."""
        self._main: int | None = None
        self._rows = self._tokens = 0
        self._flops = 0.0
        self._measured_flops = False
        self._since = time.monotonic()
        self._last = 0

    def count(self, batch: Any, share: Share | None) -> None:
        """The script got *batch* to train on, of which this rank has *share*."""
        rows, tokens = _size(batch)
        factor = share.total / rows if share and rows else 1.0
        self.batch = round(rows * factor)
        self._rows += self.batch
        self._tokens += round(tokens * factor)

    def caller(self, root: nn.Module, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """Counts the operations of one step's model calls."""
        if self.step != _COUNTED_STEP or not torch.is_grad_enabled() or not root.training:
            return call(*args, **kwargs)
        # The compiler takes no code beneath such a counter, and with fullgraph=True it says so with an error.
        with (
            warnings.catch_warnings(),
            torch.compiler.set_stance("force_eager"),
            FlopCounterMode(display=False) as counter,
        ):
            warnings.filterwarnings("ignore", _OF_COUNTER)
            out = call(*args, **kwargs)
        trained = any(parameter.requires_grad for parameter in root.parameters())
        self._flops += counter.get_total_flops() * (1 + _BACKWARD * trained)
        return out

    def stepper(self, optimizer: Optimizer, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]) -> Any:
        """Counts the steps of the optimizer that stepped first; the others of a script belong to the same step."""
        out = call(*args, **kwargs)
        if self._counts(optimizer):
            self.step += 1
            self._look()
        return out

    def repeated(self, optimizer: Optimizer) -> None:
        """A step that an earlier start made, and that was not computed again."""
        self.before += self._counts(optimizer)

    def _counts(self, optimizer: Optimizer) -> bool:
        if self._main is None:
            self._main = id(optimizer)
        return id(optimizer) == self._main

    def _look(self) -> None:
        if self.step in _FIRST_LINES or (self.step > max(_FIRST_LINES) and time.monotonic() - self._since >= _SECONDS):
            accelerator.wait()
            self._show()
            self._rows = self._tokens = 0
            self._since, self._last = time.monotonic(), self.step

    def _show(self) -> None:
        if self.rank != 0:
            return
        found = self.measure(time.monotonic() - self._since)
        self.say(found.line)
        if found.is_plausible and self._last > 0:
            write_json(self.run / "measured.json", found.as_json())

    def measure(self, seconds: float) -> Measurement:
        """What the steps since the last line amount to, in *seconds*."""
        steps = self.step - self._last
        known = self._flops and self._last > 0
        return Measurement(
            step=self.before + self.step,
            steps=steps,
            seconds=max(seconds, 1e-9),
            rows=self._rows,
            tokens=self._tokens,
            memory_gib=_memory_bytes() / 2**30,
            flops=self._flops * steps / seconds if known else None,
            peak_flops=self.peaks[_type(self.plan)] * 1e12 if _type(self.plan) in self.peaks else None,
        )


def _say(line: str) -> None:
    print(f"lumi-moai: {line}", file=sys.stderr)


def _type(plan: Plan) -> str:
    if plan.precision == "bf16" or torch.is_autocast_enabled("cuda"):
        return "bf16"
    return "bf16" if torch.get_default_dtype() == torch.bfloat16 else "fp32"


def _size(batch: Any) -> tuple[int, int]:
    """Rows of *batch*, and its tokens: the elements of the first table of whole numbers in it."""
    tensors = [part for part in _tensors(batch) if part.dim() > 0]
    tables = [part for part in tensors if part.dim() == 2 and part.dtype in (torch.int64, torch.int32)]
    return (len(tensors[0]) if tensors else 0), (tables[0].numel() if tables else 0)


def _tensors(batch: Any) -> Iterator[torch.Tensor]:
    if torch.is_tensor(batch):
        yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _tensors(part)
    elif isinstance(batch, (list, tuple)):
        for part in batch:
            yield from _tensors(part)


def _memory_bytes() -> int:
    if accelerator.is_gpu():
        return torch.cuda.max_memory_reserved()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
