"""Where there is no GPU the CPU stands in for it: `.cuda()`, `"cuda"` and `torch.cuda` in the script mean the CPU.

So one script runs on a laptop and on a cluster. Two means, no more: the functions of torch that take a device write
`cpu` where the script wrote `cuda`, and the names of `torch.cuda` are replaced by a table. All other functions are
torch's own; a `TorchFunctionMode`, which sees every call, would cost each of them some microseconds.
"""

import functools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
import torch.utils._device
from torch.jit._builtins import _find_builtin, _register_builtin

from . import late

_DEVICE = torch.device
_TAKE_DEVICE: tuple[tuple[Any, str], ...] = (
    (
        torch,
        "arange as_tensor asarray bartlett_window blackman_window empty empty_like empty_permuted empty_quantized"
        " empty_strided eye from_file full full_like hamming_window hann_window kaiser_window linspace logspace normal"
        " ones ones_like rand rand_like randint randint_like randn randn_like randperm range scalar_tensor"
        " sparse_bsc_tensor sparse_bsr_tensor sparse_compressed_tensor sparse_coo_tensor sparse_csc_tensor"
        " sparse_csr_tensor tensor tril_indices triu_indices zeros zeros_like",
    ),
    (torch.Tensor, "new_empty new_empty_strided new_full new_ones new_tensor new_zeros"),
    (torch.fft, "fftfreq rfftfreq"),
    (torch.nested, "as_nested_tensor nested_tensor nested_tensor_from_jagged"),
)
"""The functions with a word `device` or `pin_memory`, by who has them."""

_NOTHING_TO_DO = [
    "synchronize",
    "empty_cache",
    "ipc_collect",
    "init",
    "set_device",
    "set_stream",
    "set_rng_state",
    "set_rng_state_all",
    "reset_peak_memory_stats",
    "reset_max_memory_allocated",
    "set_per_process_memory_fraction",
]
_KINDS = ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
"""Of tensors with a class of their own in `torch` and in `torch.cuda`, such as `torch.cuda.FloatTensor`."""
_WITH_KERNELS = ("bitsandbytes",)
"""Libraries that load compiled programs of their own for a GPU: they must find the ones for the CPU."""
_ZERO = ["memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "current_device"]


def _means_gpu(value: object) -> bool:
    if isinstance(value, str):
        return value.startswith("cuda")
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, torch.device) and value.type == "cuda"


class _Device(type):
    """What `torch.device` is to the script: makes a device of torch's own, the CPU where the script says `cuda`."""

    def __call__(cls, *args: Any, **kwargs: Any) -> torch.device:
        """The device that `torch.device` would make."""
        if (args and _means_gpu(args[0])) or _means_gpu(kwargs.get("type")):
            return _DEVICE("cpu")
        return _DEVICE(*args, **kwargs)

    def __instancecheck__(cls, thing: object) -> bool:
        return isinstance(thing, _DEVICE)

    def __subclasscheck__(cls, kind: type) -> bool:
        return kind is cls or issubclass(kind, _DEVICE)

    def __eq__(cls, kind: object) -> bool:
        return kind is _DEVICE or kind is cls

    def __hash__(cls) -> int:
        return hash(_DEVICE)


class Event:
    """A point in time, as `torch.cuda.Event`."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.seconds = 0.0

    def record(self, stream: object = None) -> None:
        """Note the time."""
        self.seconds = time.perf_counter()

    def elapsed_time(self, end: "Event") -> float:
        """Milliseconds until *end*."""
        return (end.seconds - self.seconds) * 1e3

    def query(self) -> bool:
        """The CPU has always arrived."""
        return True

    def synchronize(self) -> None:
        """Nothing to wait for."""

    wait = synchronize


class Stream:
    """A queue of work, as `torch.cuda.Stream`; the CPU works at once."""

    device = torch.device("cpu")
    cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        """Take what the script gives."""

    def synchronize(self, *_: Any) -> None:
        """Nothing to wait for."""

    wait_event = wait_stream = synchronize

    def query(self) -> bool:
        """The CPU has always arrived."""
        return True

    def is_capturing(self) -> bool:
        """No graph is made of what the CPU does."""
        return False

    def record_event(self, event: Event | None = None) -> Event:
        """An event of now."""
        event = event or Event()
        event.record()
        return event

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Generator(torch.Generator):
    """A random generator whose device may be called `cuda`."""

    def __new__(cls, device: Any = "cpu") -> "Generator":
        """A generator of the CPU."""
        return super().__new__(cls, "cpu" if _means_gpu(device) else device)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _properties(*_: Any) -> SimpleNamespace:
    return SimpleNamespace(
        name="CPU", gcnArchName="CPU", total_memory=_memory(), major=0, minor=0, multi_processor_count=1
    )


def _always(value: object) -> Callable[..., Any]:
    # A function of its own for each name: torch.compile tells its functions apart by identity.
    return lambda *_, **__: value


def _in_cuda() -> dict[str, Any]:
    """What the names of `torch.cuda` are here."""
    return {
        **{name: _always(None) for name in _NOTHING_TO_DO},
        **{name: _always(0) for name in _ZERO},
        **{f"{kind}Tensor": getattr(torch, f"{kind}Tensor") for kind in _KINDS},
        "is_available": _always(True),
        "is_bf16_supported": _always(True),
        "is_current_stream_capturing": _always(False),
        "device_count": _always(1),
        "get_device_name": _always("CPU"),
        "get_device_capability": _always((0, 0)),
        "get_device_properties": _properties,
        "mem_get_info": lambda *_: (_memory(), _memory()),
        "memory_stats": _always({}),
        "memory_summary": _always(""),
        "get_rng_state": lambda *_: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "device": lambda *_: nullcontext(),
        "stream": lambda stream=None: nullcontext(),
        "current_stream": lambda *_: Stream(),
        "default_stream": lambda *_: Stream(),
        "Event": Event,
        "Stream": Stream,
    }


def _in_accelerator() -> dict[str, Any]:
    """What the names of `torch.accelerator` are here: as where torch was built for the CPU, but that nothing stops.

    Torch itself asks here, the optimizers in each step, and a build for GPUs would ask its driver next.
    """
    cuda = _in_cuda()
    return {
        **{name: cuda[name] for name in cuda if name in dir(torch.accelerator)},
        **dict.fromkeys(("set_device_index", "set_device_idx", "reset_accumulated_memory_stats"), _always(None)),
        "empty_host_cache": _always(None),
        **dict.fromkeys(("current_device_index", "current_device_idx"), _always(0)),
        "get_memory_info": cuda["mem_get_info"],
        "is_available": _always(False),
        "device_count": _always(0),
    }


def install() -> None:
    """Let the CPU stand in for the GPU in this process, for good."""
    for name, value in _in_cuda().items():
        setattr(torch.cuda, name, value)
        if "rng_state" in name:  # which libraries call where it is defined
            setattr(torch.cuda.random, name, value)
    for name, value in _in_accelerator().items():
        if hasattr(torch.accelerator, name):
            setattr(torch.accelerator, name, value)
    for name in ("range_push", "range_pop", "mark"):
        setattr(torch.cuda.nvtx, name, _always(None))
    torch.Tensor.record_stream = _always(None)
    torch.Generator = Generator
    torch.random.fork_rng = _with(torch.random.fork_rng, _only_the_cpu)
    torch.load = _with(torch.load, _load_here)
    autocast = torch.amp.autocast_mode.autocast
    autocast.__init__ = _with(autocast.__init__, _autocast_here)
    # "'pin_memory' argument is set as true but no accelerator is found": true, and of no use to anybody.
    warnings.filterwarnings("ignore", message=".*pin_memory.*", category=UserWarning)
    if torch.distributed.is_available():
        _install_distributed()
    _install_devices()
    for name in _WITH_KERNELS:
        late.within(name, _without_gpu)


@contextmanager
def _without_gpu() -> Iterator[None]:
    own, torch.cuda.is_available = torch.cuda.is_available, _always(False)
    try:
        yield
    finally:
        torch.cuda.is_available = own


def _install_devices() -> None:
    torch.utils._device._device_constructors()  # torch keeps this list, and must find its own functions in it
    for owner, names in _TAKE_DEVICE:
        for name in names.split():
            if own := getattr(owner, name, None):
                setattr(owner, name, _with(own, _words_here))
                _register_builtin(getattr(owner, name), _find_builtin(own))  # for torch.jit.script
    torch.Tensor.to = _with(torch.Tensor.to, _second_here)
    torch.Tensor.type = _with(torch.Tensor.type, _kind_here)
    torch.set_default_tensor_type = _with(torch.set_default_tensor_type, _kind_here)
    # Each of its own identity, as above.
    torch.Tensor.cuda, torch.Tensor.pin_memory = _itself, lambda tensor, *_, **__: tensor
    torch._C._nn._parse_to = _with(torch._C._nn._parse_to, _first_here)
    torch.device = _Device("device", (), {"__module__": "torch", "__doc__": _DEVICE.__doc__})


def _install_distributed() -> None:
    from torch.nn.parallel import DistributedDataParallel

    wrapper = DistributedDataParallel
    wrapper.__init__ = _with(wrapper.__init__, _without("device_ids", "output_device"))
    for module in (torch.distributed, torch.distributed.distributed_c10d):
        module.init_process_group = _with(module.init_process_group, _gloo_here)
        module.new_group = _with(module.new_group, _gloo_here)
        module.barrier = _with(module.barrier, _without("device_ids"))


Change = Callable[[tuple, dict[str, Any]], tuple[tuple, dict[str, Any]]]


def _with(function: Callable[..., Any], change: Change) -> Callable[..., Any]:
    """*function*, its arguments changed first."""

    @functools.wraps(function)
    def changed(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = change(args, kwargs)
        return function(*args, **kwargs)

    return changed


def _words_here(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    if _means_gpu(kwargs.get("device")):
        kwargs["device"] = "cpu"
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    return args, kwargs


def _first_here(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    return (("cpu", *args[1:]) if args and _means_gpu(args[0]) else args), _words_here(args, kwargs)[1]


def _second_here(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    rest, kwargs = _first_here(args[1:], kwargs)
    return (*args[:1], *rest), kwargs


def _kind_here(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    return tuple(each.replace("torch.cuda.", "torch.") if isinstance(each, str) else each for each in args), kwargs


def _itself(tensor: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """*tensor*, which is already where the script wants it."""
    return tensor


def _without(*names: str) -> Change:
    return lambda args, kwargs: (args, {name: value for name, value in kwargs.items() if name not in names})


def _only_the_cpu(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    return ((), *args[1:]), _without("devices")(args, kwargs)[1]


def _load_here(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    if len(args) > 1:
        args, kwargs = args[:1] + args[2:], {**kwargs, "map_location": args[1]}
    location = kwargs.get("map_location")
    if location is None or _means_gpu(location):
        kwargs = {**kwargs, "map_location": "cpu"}
    return args, kwargs


def _autocast_here(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    here, *rest = args
    if rest:
        return (here, "cpu" if _means_gpu(rest[0]) else rest[0], *rest[1:]), kwargs
    if _means_gpu(kwargs.get("device_type")):
        kwargs = {**kwargs, "device_type": "cpu"}
    return args, kwargs


def _gloo_here(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
    args = tuple("gloo" if isinstance(arg, str) and "nccl" in arg else arg for arg in args)
    if "nccl" in str(kwargs.get("backend")):
        kwargs = {**kwargs, "backend": "gloo"}
    return _without("device_id")(args, kwargs)
