"""What can be computed on a part of a tensor alone, by the names of torch's functions."""

from collections.abc import Mapping

from . import columns, elements, scores, shapes
from .columns import Rule


def _table(*entries: tuple[Rule, str]) -> Mapping[str, Rule]:
    return {name: rule for rule, names in entries for name in names.split()}


TABLE = _table(
    (shapes.size_of, "shape size numel nelement len"),
    (columns.native, "dim ndim dtype device layout requires_grad grad_fn get_device"),
    (elements.same, "to type_as type float half bfloat16 double clone contiguous detach data"),
    (
        elements.each,
        "abs neg add radd iadd sub subtract rsub isub mul multiply rmul imul div divide truediv rtruediv itruediv"
        " true_divide pow rpow square sqrt rsqrt reciprocal exp expm1 log log1p sigmoid tanh sin cos relu relu6 gelu"
        " silu mish elu leaky_relu softplus hardtanh hardswish clamp clip clamp_min clamp_max erf where masked_fill"
        " maximum minimum eq ne lt le gt ge isnan isinf isfinite logical_not",
    ),
    (elements.product, "matmul"),
    (scores.attention, "scaled_dot_product_attention"),
    (elements.along, "softmax log_softmax cumsum"),
    (elements.reduced, "mean sum amax"),
    (elements.normed, "layer_norm rms_norm"),
    (elements.linear, "linear"),
    (shapes.reshaped, "view reshape flatten unflatten"),
    (
        shapes.viewed,
        "transpose permute swapaxes swapdims movedim moveaxis mT getitem select narrow unbind split chunk"
        " split_with_sizes tensor_split expand squeeze unsqueeze",
    ),
    (shapes.glued, "cat concat stack"),
    (elements.dropout, "dropout"),
    (elements.hooked, "register_hook"),
)
