"""Torch's stages and schedules, for pieces that this rank computes in ways of its own.

The schedules want stages that are modules, and one row of numbers between them. The module here asks whoever computes
the pieces, and knows which one is next because torch begins them in order.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .... import accelerator
from ... import need
from .owned import Stages

_KEEPS = (2, 8)
"""The first version whose schedules keep all transfers that they began together, and wait for each."""

_TAKES_FEW = (2, 13)
"""The first version seen whose `ScheduleGPipe` takes fewer pieces than stages; 2.8 refuses them."""

Compute = Callable[[int, torch.Tensor | None], torch.Tensor]
"""The row that leaves this stage, of the piece with a number, given the row that arrived."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What travels between the stages."""

    arrives: int
    leaves: int
    """Numbers; of the first and of the last stage 1, which mean nothing."""
    arrives_as: torch.dtype
    leaves_as: torch.dtype


class _Transfers(list):
    """What was begun together, and is waited for together: 2.7 asks for one thing to wait for."""

    def wait(self) -> None:
        """Wait for each."""
        for each in self:
            each.wait()


def keep_transfers() -> None:
    """Have the schedules of 2.7 keep what they send: gloo drops what nobody holds, and the stages waited for ever."""
    from torch.distributed.pipelining import schedules as of_torch

    if need.version_of(torch.__version__) < _KEEPS:
        of_torch._batch_p2p = _begin  # private, so asked for by its version


def _begin(operations: list[Any], desc: str | None = None) -> _Transfers:
    return _Transfers(torch.distributed.batch_isend_irecv(operations) if operations else ())


class _Turns(nn.Module):
    """What torch takes for the stage's part of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.compute: Compute | None = None
        self.next = 0

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        """The next piece."""
        number, self.next = self.next, self.next + 1
        return self.compute(number, row)  # type: ignore[misc]


class Schedule:
    """The pieces of a batch through all stages: forward only, or forward and back."""

    def __init__(self, stages: Stages, rows: Rows, pieces: int, *, goes_back: bool) -> None:
        from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe  # which take long to import

        keep_transfers()
        span = stages.span
        self._span, self._pieces = span, pieces
        self._turns = _Turns()
        stage = PipelineStage(
            self._turns,
            span.stage,
            span.stages,
            accelerator.device(),
            input_args=(_without_numbers(rows.arrives, rows.arrives_as, goes_back=goes_back),),
            output_args=(_without_numbers(rows.leaves, rows.leaves_as, goes_back=goes_back),),
            group=stages.group,
        )
        # With as many pieces as stages a stage begins to go back early, and keeps the activations of few pieces.
        kind = Schedule1F1B if goes_back and pieces >= span.stages else ScheduleGPipe
        self._own = _of(kind, stage, pieces, loss_fn=_sum if goes_back else None, scale_grads=False)

    def run(self, compute: Compute) -> None:
        """Let *compute* see each piece; all stages call this together."""
        self._turns.compute, self._turns.next = compute, 0
        given = (torch.zeros(self._pieces),) if self._span.stage == 0 else ()
        words = {"target": torch.zeros(self._pieces)} if self._span.is_last else {}
        try:
            self._own.step(*given, **words)
        except RuntimeError as error:
            # Torch tells of an error of the model in a text with all its arguments.
            raise error.__cause__ or error from None
        finally:
            self._turns.compute = None


def _of(kind: Any, stage: Any, pieces: int, **words: Any) -> Any:
    if pieces >= stage.num_stages or need.version_of(torch.__version__) >= _TAKES_FEW:
        return kind(stage, pieces, **words)
    schedule = kind(stage, stage.num_stages, **words)  # which counts them as it begins, and works with any number
    schedule._n_microbatches = pieces
    return schedule


def _sum(outputs: torch.Tensor, _target: Any) -> torch.Tensor:
    return outputs.sum()


def _without_numbers(count: int, kind: torch.dtype, *, goes_back: bool) -> torch.Tensor:
    return torch.empty(count, dtype=kind, device="meta", requires_grad=goes_back)
