"""The pieces of one call through the stages of a model: forward without a graph, then forward and back."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from ...micro import rerun, state
from ...micro.sums import Sums
from . import elsewhere, handing
from .homes import Homes
from .kinds import Kind, Kinds, drew, seeds
from .looks import Looks
from .passage import Passage, Span
from .plain import Plain

if TYPE_CHECKING:
    from ...micro.rerun import Found, Outputs, Work


_Grads = tuple[Sequence[Any], dict[int, list[torch.Tensor]]]
"""Of the outputs; and, by piece, the arguments that get one."""


class Course:
    """One call of a model."""

    def __init__(self, kinds: Kinds, plain: Plain, looks: Looks, homes: Homes) -> None:
        self.kinds = kinds
        self.homes = homes
        self.plain = plain
        self.looks = looks
        self.stages = kinds.stages
        self._kind: Kind
        """Set by `forward`."""
        self.has_loss = False
        """Whether the model computed one."""
        self._seeds: Sequence[int] = ()
        """Of each piece's random numbers; none where the model draws none."""

    @property
    def span(self) -> Span:
        """The blocks of this stage."""
        return self.stages.span

    def forward(self, work: "Work") -> "Outputs":
        """The outputs of *work* on all stages, without a graph.

        Raises RequestError for a model that cannot be computed so.
        """
        self.looks.ahead(work.name)
        rerun.remember_weights(work)
        is_first = work.is_training and self.homes.begin()
        with self.plain.in_place(), torch.no_grad():
            self._kind = kind = self.kinds.of(work, self._piece)
            self._seeds, after = seeds(len(work.pieces), draws=kind.draws)
            found = self._outputs(work, kind, looks=is_first)
            if is_first:
                self.homes.agree()
            values = rerun.settled(work, found) if self.span.is_last else []
            again = self.span.is_last and rerun.is_unsettled(work, found, values)
            if handing.told(again, self.span.stages - 1, self.stages):
                found = self._outputs(work, kind)
            state.put_back(after)
        outputs = rerun.put_together(work, found, values) if self.span.is_last else None
        outputs, self.has_loss = handing.over(outputs, work.sums.has_loss, self.stages)
        return outputs

    def back(self, work: "Work", grads: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The gradients of the parameters and of the arguments of *work*, given those of its outputs."""
        kind = self._kind
        of_inputs: list[Any] = [None] * len(work.inputs())
        own: dict[int, list[torch.Tensor]] = {}
        compute = partial(self._seeded, work, kind, (grads, own))
        with state.chance_kept(), self.plain.in_place(), state.computed_as(work.autocasts):
            kind.schedule(goes_back=True).run(compute)
        for number, leaves in own.items():
            for place, leaf in enumerate(leaves):
                of_inputs[place] = rerun.placed(work, of_inputs[place], leaf.grad, place, work.pieces[number])
        return handing.gradients(work, self.plain, of_inputs, self.stages)

    def _outputs(self, work: "Work", kind: Kind, *, looks: bool = False) -> "list[Found]":
        """Of all pieces, on the last stage; none on the others. With *looks* one learns who needs which weights."""
        found: list[Found] = []

        def compute(number: int, row: torch.Tensor) -> torch.Tensor:
            piece = work.pieces[number]
            leaves = [rerun.cut(work, _without_graph(leaf), piece) for leaf in work.leaves]
            attempt = partial(self._piece, work, number, leaves, kind.received(row, piece[1] - piece[0]))
            output, left = self.homes.look(attempt, self._again(work, attempt)) if looks and not number else attempt()
            if output is None:
                return kind.sent(left, piece[1] - piece[0])
            found.append(output)
            return torch.zeros(1, device=row.device)

        kind.schedule(goes_back=False).run(compute)
        return found

    def _again(self, work: "Work", compute: partial) -> Callable[[], Any]:
        """*compute*, apart from the others: no sums over ranks, and the random numbers stay."""
        apart = replace(work, sums=Sums(None, is_whole=False))

        def again() -> Any:
            with state.chance_kept():
                return self._piece(apart, *compute.args[1:])

        return again

    def _seeded(self, work: "Work", kind: Kind, grads: "_Grads", number: int, row: torch.Tensor) -> torch.Tensor:
        """What leaves this stage of the piece with *number*; at the last stage something with the piece's gradients.

        The second of *grads* gets the rows of the arguments that a gradient goes to.
        """
        of_outputs, own = grads
        piece = work.pieces[number]
        leaves = [rerun.own_leaf(work, leaf, piece) for leaf in work.leaves]
        own[number] = [mine for leaf, mine in zip(work.leaves, leaves, strict=True) if rerun.goes_to(leaf)]
        output, left = self._piece(work, number, leaves, kind.received(row, piece[1] - piece[0]))
        self.looks.at_results(work.name)
        if output is None:
            sent = kind.sent(left, piece[1] - piece[0])
            return sent if sent.requires_grad else _Seeded.apply([torch.zeros_like(row)], sent, row)
        outs, starts = rerun.seeded(work, piece, output[0], of_outputs)
        if not outs:
            outs, starts = [row], [torch.zeros_like(row)]
        return _Seeded.apply(starts, row.new_zeros(1), *outs)

    def _piece(self, work: "Work", number: int, leaves: Sequence[Any], received: Any) -> "tuple[Found | None, Any]":
        """The outputs of one piece, on the last stage; on the others what this stage's last block gave.

        *received* is what the block before this stage gave.
        """
        before = state.chance()
        if self._seeds:
            torch.manual_seed(self._seeds[number])
        seed = self._seeds[number] + self.span.stage if self._seeds and self.span.stage else None
        passage, output = Passage(self.span, received, seed), None
        with passage.under_way():
            output = rerun.outputs(work, work.pieces[number], leaves)
        self.looks.at_buffers(work.name)
        if output is not None and elsewhere.holds(output[0]):
            raise elsewhere.refusal("it returns what a block before the last stage gave, such as all hidden states")
        if not self._seeds and self.kinds.is_known and drew(before):
            raise elsewhere.refusal("it draws random numbers in some calls only")
        return output, passage.left


def _without_graph(leaf: Any) -> Any:
    return leaf.data if isinstance(leaf, torch.Tensor) else leaf


class _Seeded(torch.autograd.Function):
    """A tensor whose gradient starts others: of what it is made of, *starts*."""

    @staticmethod
    def forward(ctx: Any, starts: Sequence[torch.Tensor], value: torch.Tensor, *made_of: torch.Tensor) -> torch.Tensor:
        """*value*, which means nothing."""
        ctx.starts = starts
        return value.clone()

    @staticmethod
    def backward(ctx: Any, _gradient: torch.Tensor) -> Any:
        """The starts."""
        return None, None, *ctx.starts
