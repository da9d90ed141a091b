"""Source `nvml`: the driver's own library through `pynvml` (the maintained package is nvidia-ml-py, 12 or later).

Memory in bytes, power in milliwatts. A value that a chip does not support raises; it becomes None here.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ..errors import RunError
from .sample import MIB, Look, Process, Sample


def read(node: str) -> Look:
    """The devices of this machine.

    Raises RunError when the library or its driver is not here.
    """
    library = _library()
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        raise RunError(f"it does not answer ({error})") from error
    try:
        return look(library, node)
    except library.NVMLError as error:
        raise RunError(f"it stopped answering ({error})") from error
    finally:
        library.nvmlShutdown()


def _library() -> ModuleType:
    try:
        import pynvml
    except ImportError as error:
        raise RunError(
            f"its Python library is not installed, `pip install nvidia-ml-py` brings it ({error})"
        ) from error
    return pynvml


def look(library: Any, node: str) -> Look:
    """What the initialised *library* shows.

    Raises RunError when it shows no device.
    """
    handles = [library.nvmlDeviceGetHandleByIndex(device) for device in range(library.nvmlDeviceGetCount())]
    if not handles:
        raise RunError("it shows no device")
    return Look(
        samples=tuple(_sample(library, handle, device, node) for device, handle in enumerate(handles)),
        processes=tuple(item for device, handle in enumerate(handles) for item in _held(library, handle, device, node)),
    )


def _sample(library: Any, handle: Any, device: int, node: str) -> Sample:
    memory = _asked(library, library.nvmlDeviceGetMemoryInfo, handle)
    busy = _asked(library, library.nvmlDeviceGetUtilizationRates, handle)
    milliwatts = _asked(library, library.nvmlDeviceGetPowerUsage, handle)
    return Sample(
        node=node,
        device=device,
        memory_used_mib=None if memory is None else memory.used / MIB,
        memory_total_mib=None if memory is None else memory.total / MIB,
        utilisation_percent=None if busy is None else float(busy.gpu),
        memory_utilisation_percent=None if busy is None else float(busy.memory),
        power_watts=None if milliwatts is None else milliwatts / 1000,
        temperature_celsius=_temperature(library, handle),
        memory_temperature_celsius=_memory_temperature(library, handle),
    )


def _asked(library: Any, function: Callable[..., Any], *words: Any) -> Any:
    try:
        return function(*words)
    except library.NVMLError:
        return None


def _temperature(library: Any, handle: Any) -> float | None:
    value = _asked(library, library.nvmlDeviceGetTemperature, handle, library.NVML_TEMPERATURE_GPU)
    return None if value is None else float(value)


def _memory_temperature(library: Any, handle: Any) -> float | None:
    """A field value; each carries its own return code, and 0 degrees is how chips without the sensor answer."""
    values = _asked(library, library.nvmlDeviceGetFieldValues, handle, [library.NVML_FI_DEV_MEMORY_TEMP])
    if not values or values[0].nvmlReturn != library.NVML_SUCCESS:
        return None
    return float(values[0].value.uiVal) or None


def _held(library: Any, handle: Any, device: int, node: str) -> list[Process]:
    return [
        Process(
            node=node,
            pid=item.pid,
            name=_name(library, item.pid),
            memory_used_mib=None if item.usedGpuMemory is None else item.usedGpuMemory / MIB,
            device=device,
        )
        for item in _asked(library, library.nvmlDeviceGetComputeRunningProcesses, handle) or []
    ]


def _name(library: Any, pid: int) -> str:
    name = _asked(library, library.nvmlSystemGetProcessName, pid)
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")
    return text.split("/")[-1]
