"""What torch's functions do with a tensor, by their names: do they need its numbers, and how many at a time."""

from collections.abc import Callable, Mapping
from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FACTS = _words(
    "size numel nelement dim ndimension stride is_contiguous is_floating_point is_complex is_signed element_size"
    " requires_grad_ retain_grad detach detach_ to_local full_tensor redistribute zeros_like ones_like empty_like"
    " full_like __hash__ __len__ is_same_size get_device type is_pinned backward __deepcopy__ __reduce_ex__ is_cuda"
    " _is_view has_names is_inference __tensor_flatten__"
    " _amp_foreach_non_finite_check_and_unscale_ __dir__ is_sparse_csr is_conj is_neg is_coalesced"
)
"""What needs no number of the tensor, and what torch does rightly with a spread one."""
REFUSED = {
    "data_ptr": "its address",
    "untyped_storage": "its storage",
    "storage": "its storage",
    "register_hook": "a hook on its gradient",
    "register_post_accumulate_grad_hook": "a hook on its gradient",
    "set_": "another storage",
    "__cuda_array_interface__": "its address",
    "__dlpack__": "its address",
}
"""What a tensor in parts cannot give, and what that is called."""
_VIEWS = _words("T mT H mH real imag")
"""Properties that are views."""
_SINGLE = _words(
    "abs neg positive add sub subtract mul multiply div divide true_divide pow square sqrt rsqrt reciprocal exp expm1"
    " log log1p log2 sign clamp clip clamp_min clamp_max lerp addcmul addcdiv maximum minimum isfinite isnan isinf"
    " eq ne lt le gt ge logical_not logical_and logical_or sigmoid tanh sin cos relu nan_to_num round floor ceil trunc"
    " float half bfloat16 double to clone copy_ zero_ fill_ __neg__ __abs__ __add__ __radd__ __sub__ __rsub__ __mul__"
    " __rmul__ __truediv__ __rtruediv__ __pow__ __iadd__ __isub__ __imul__ __itruediv__ __ipow__ __eq__ __ne__ __lt__"
    " __le__ __gt__ __ge__"
)
"""Operations on each number alone, without the underscore of those in place."""
_TOTALS = _words("sum norm vector_norm linalg_vector_norm")
"""Operations whose result over the parts is a single number."""


_DRAWS = _words("normal_ uniform_ random_ bernoulli_ exponential_ log_normal_ cauchy_ geometric_")
"""What fills a tensor with random numbers, whatever was in it."""


def name_of(function: Callable[..., Any]) -> tuple[str, bool]:
    """The name of *function*, and whether it only asks for facts; `data` when it reads a property, `_set_data` else."""
    name = getattr(function, "__name__", "")
    if name in ("__get__", "__set__", "__delete__"):
        field = getattr(getattr(function, "__self__", None), "__name__", "")
        return (field, field not in _VIEWS) if name == "__get__" else (f"_set_{field}", True)
    return name, name in _FACTS


def fills(function: Callable[..., Any], name: str) -> bool:
    """Whether *function*, called *name*, gives a tensor new numbers whatever was in it."""
    return name in _DRAWS or getattr(function, "__module__", "") == "torch.nn.init"


def is_maker(name: str) -> bool:
    """Whether the function called *name* makes a tensor of its own of the same kind, such as `new_zeros`."""
    return name.startswith("new_")


def is_single(name: str) -> bool:
    """Whether the function called *name* works on each number alone."""
    return name in _SINGLE or name.rstrip("_") in _SINGLE


def is_in_place(name: str) -> bool:
    """Whether the function called *name* changes its first argument."""
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


def is_of_a_library(function: Callable[..., Any]) -> bool:
    """Whether *function* is an operation that a library added to torch, whose program edits without being noticed."""
    name = getattr(function, "_qualified_op_name", "") or getattr(function, "_name", "")
    return isinstance(name, str) and "::" in name and name.partition("::")[0] not in ("aten", "prims")


def is_total(name: str, args: tuple, kwargs: Mapping[str, Any]) -> bool:
    """Whether this is a sum or norm over all numbers: no dimension is named. Means weigh parts alike before 2.13."""
    extra = [kwargs.get("dim"), *args[2 if "norm" in name else 1 :]]
    return name in _TOTALS and all(each is None for each in extra) and not {"out", "keepdim"} & set(kwargs)
