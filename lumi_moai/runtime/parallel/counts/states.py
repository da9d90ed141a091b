"""States of torch's recurrent layers, (layers, rows, size): their rows are in the second dimension.

Sizes do not tell: a rank may have as many rows as there are layers, or one. So these are known by what made them.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import _VF, nn
from torch.nn.modules import rnn
from torch.nn.utils import rnn as packing
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree

from ... import group
from ..share import Share, bounds
from ..transforming import is_transforming

LAYERS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
"""What gives an output and then states."""
_WIDTHS: deque[tuple[int, int]] = deque(maxlen=8)
"""How wide rows of the last batches were that their rank has filled up, and how wide they are now."""
_PACKED: dict[int, int] = {}
"""The same of what was packed."""
_MADE: dict[int, torch.Size] = {}
"""Where in memory the states are that were made in the call of a model, and how large; `detach()` moves none."""


def install(part_of: Callable[[Any, torch.Tensor, int | None], Any], at_hand: Callable[[], Share | None]) -> None:
    """Know the states that torch's recurrent layers give from now on, and rows that the script packs.

    *part_of* makes a tensor a part of the batch of another, with its rows in a dimension. *at_hand* tells how the batch
    was cut that is computed.
    """
    for kind in (rnn.RNNBase, rnn.RNNCellBase):
        kind.__call__ = _taking(at_hand)
    for name in LAYERS:
        setattr(_VF, name, _giving(getattr(_VF, name)))
    rnn._apply_permutation = _reordering(rnn._apply_permutation)
    packing.pack_padded_sequence = _packing(packing.pack_padded_sequence, part_of)
    packing.pad_packed_sequence = _unpacking(packing.pad_packed_sequence, part_of)
    if PackedSequence not in _pytree.SUPPORTED_NODES:  # what a model is given is looked through for rows
        _pytree.register_pytree_node(PackedSequence, lambda packed: (list(packed), None), _packed)


def _packing(own: Callable[..., Any], part_of: Any) -> Callable[..., Any]:
    """*own*, whose rows stand step by step, with fewer of them at each."""

    @functools.wraps(own)
    def pack(input: torch.Tensor, *args: Any, **kwargs: Any) -> PackedSequence:
        packed = own(input, *args, **kwargs)
        is_batch_first = kwargs.get("batch_first", args[1] if len(args) > 1 else False)
        _note_packed(packed, input.shape[1 if is_batch_first else 0])
        part_of(packed.data, input, None)
        return packed

    return pack


def _unpacking(own: Callable[..., Any], part_of: Any) -> Callable[..., Any]:
    @functools.wraps(own)
    def unpack(sequence: PackedSequence, batch_first: bool = False, *args: Any, **kwargs: Any) -> Any:
        if not args and "total_length" not in kwargs and (width := _PACKED.get(len(sequence.batch_sizes))):
            kwargs["total_length"] = width
        filled, lengths = own(sequence, batch_first, *args, **kwargs)
        return part_of(filled, sequence.data, 0 if batch_first else 1), lengths

    return unpack


def note_widths(widths: Iterable[tuple[int, int]]) -> None:
    """Rows of the next batch are of the second of each of these *widths*, and those of this rank of the first."""
    _PACKED.clear()
    _WIDTHS.extend(widths)


def forget_widths() -> None:
    """The next batch is one that every rank has whole."""
    _WIDTHS.clear()
    _PACKED.clear()


def _note_packed(packed: PackedSequence, steps: int) -> None:
    """*packed* was a table of so many *steps*; what is unpacked will be as wide as the global batch's longest row."""
    longest = len(packed.batch_sizes)
    _PACKED.pop(longest, None)
    for own, width in _WIDTHS:
        if own == longest and width == steps:
            _PACKED[longest] = width


def packed(result: Any) -> list[torch.Tensor]:
    """The rows times steps that are packed in *result*, a model's."""
    found = _pytree.tree_leaves(result, is_leaf=_is_packed)
    return [each.data for each in found if _is_packed(each) and type(each.data) is torch.Tensor]


def _is_packed(thing: Any) -> bool:
    return isinstance(thing, PackedSequence)


def is_state(part: Any, rows: int) -> bool:
    """Whether *part*, of a call of a model that is over, is a state with so many *rows*."""
    if type(part) is not torch.Tensor or part.dim() != 3 or part.shape[1] != rows:
        return False
    return _MADE.get(part.data_ptr()) == part.shape


def forget() -> None:
    """The call is over."""
    _MADE.clear()


def _note(state: torch.Tensor) -> None:
    # Another stage's state is nowhere in memory here.
    if type(state) is torch.Tensor and not torch.compiler.is_compiling() and not is_transforming():
        _MADE[state.data_ptr()] = state.shape


def _packed(parts: Iterable[Any], _: Any) -> PackedSequence:
    return PackedSequence(*parts)


def _taking(at_hand: Callable[[], Share | None]) -> Callable[..., Any]:
    """A call of a recurrent layer, with this rank's rows of a state that the script made for those of the batch."""

    def call(layer: nn.Module, given: Any, *args: Any, **kwargs: Any) -> Any:
        share = None if torch.compiler.is_compiling() or (not args and not kwargs) else at_hand()
        if share is not None and share.total != max(share.rows, 1) == _rows(layer, given):
            own = functools.partial(_own, share)
            args, kwargs = _pytree.tree_map(own, (args, kwargs))
        return nn.Module.__call__(layer, given, *args, **kwargs)

    return call


def _rows(layer: nn.Module, given: Any) -> int:
    if _is_packed(given):
        return int(given.batch_sizes[0])
    is_cell = isinstance(layer, rnn.RNNCellBase)
    return given.shape[0 if is_cell or layer.batch_first else 1] if given.dim() == 3 - is_cell else 0


def _own(share: Share, state: Any) -> Any:
    if type(state) not in (torch.Tensor, nn.Parameter) or state.dim() < 2 or state.shape[-2] != share.total:
        return state
    start, end, _ = bounds(share.total, dist.get_rank(group.data_group()), share.ranks)
    return state.narrow(-2, start, end - start)


def _giving(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def layer(*args: Any, **kwargs: Any) -> Any:
        result = own(*args, **kwargs)
        for state in result[1:]:
            _note(state)
        return result

    return layer


def _reordering(own: Callable[..., Any]) -> Callable[..., Any]:
    """*own*, which puts the rows of a state into the order of a packed sequence, or back."""

    @functools.wraps(own)
    def reordered(tensor: torch.Tensor, permutation: torch.Tensor, dim: int = 1) -> torch.Tensor:
        result = own(tensor, permutation, dim)
        if dim == 1 and tensor.dim() == 3:
            _note(result)
        return result

    return reordered
