"""Where there is no GPU the CPU stands in for it: `.cuda()`, `"cuda"` and `torch.cuda` in the script mean the CPU.

So one script runs on a laptop and on a cluster. Two means, no more: a `TorchFunctionMode` sees every torch call and
writes `cpu` where the script wrote `cuda`, and the names of `torch.cuda` are replaced by a table. The mode costs some
microseconds per torch call, on the CPU only.
"""

import functools
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_TAKES_DEVICE_FIRST = {torch.device, torch._C._nn._parse_to}
_STAYS = {torch.Tensor.cuda, torch.Tensor.pin_memory}
"""Methods that would move a tensor to the GPU or make it ready to go there: it is there already."""


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
_ZERO = ["memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved", "current_device"]


def _means_gpu(value: object) -> bool:
    if isinstance(value, str):
        return value.startswith("cuda")
    if isinstance(value, int):
        return not isinstance(value, bool)
    return isinstance(value, torch.device) and value.type == "cuda"


class CpuStandsIn(TorchFunctionMode):
    """Writes `cpu` where a torch call says `cuda`."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call *func* on the CPU."""
        kwargs = dict(kwargs) if kwargs else {}
        if func in _STAYS:
            return args[0]
        if func in _TAKES_DEVICE_FIRST and args and _means_gpu(args[0]):
            args = ("cpu", *(args[1:] if func is not torch.device else ()))
        elif func is torch.Tensor.to and len(args) > 1 and _means_gpu(args[1]):
            args = (args[0], "cpu", *args[2:])
        if _means_gpu(kwargs.get("device")):
            kwargs["device"] = "cpu"
        if kwargs.get("pin_memory"):
            kwargs["pin_memory"] = False
        return func(*args, **kwargs)


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
    return SimpleNamespace(name="CPU", total_memory=_memory(), major=0, minor=0, multi_processor_count=1)


def _always(value: object) -> Callable[..., Any]:
    # A function of its own for each name: torch.compile tells its functions apart by identity.
    return lambda *_, **__: value


def _in_cuda() -> dict[str, Any]:
    """What the names of `torch.cuda` are here."""
    return {
        **{name: _always(None) for name in _NOTHING_TO_DO},
        **{name: _always(0) for name in _ZERO},
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


def install() -> None:
    """Let the CPU stand in for the GPU in this process, for good."""
    for name, value in _in_cuda().items():
        setattr(torch.cuda, name, value)
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
    CpuStandsIn().__enter__()


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
