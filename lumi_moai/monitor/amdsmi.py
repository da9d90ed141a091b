"""Source `amdsmi`: AMD's Python library, which the ROCm images of PyTorch bring along.

Written against `py-interface/amdsmi_interface.py` of ROCm/amdsmi 24 (ROCm 6; 0ceca28, October 2024): memory in MiB,
power in watts, temperatures in degrees, any value may be the text `N/A`. ROCm 7 adds `socket_power`.
"""

from types import ModuleType
from typing import Any

from ..errors import RunError
from .sample import MIB, Look, Process, Sample, number


def read(node: str) -> Look:
    """The devices of this machine.

    Raises RunError when the library or its driver is not here.
    """
    library = _library()
    try:
        library.amdsmi_init()
    except library.AmdSmiException as error:
        raise RunError(f"it does not answer ({error})") from error
    try:
        return look(library, node)
    except library.AmdSmiException as error:
        raise RunError(f"it stopped answering ({error})") from error
    finally:
        library.amdsmi_shut_down()


def _library() -> ModuleType:
    try:
        import amdsmi
    except (ImportError, OSError, KeyError) as error:  # its own loader raises all three when libamd_smi is missing
        raise RunError(f"its Python library is not installed ({error})") from error
    return amdsmi


def look(library: Any, node: str) -> Look:
    """What the initialised *library* shows; a value that it refuses is None.

    Raises RunError when it shows no device.
    """
    handles = library.amdsmi_get_processor_handles()
    if not handles:
        raise RunError("it shows no device")
    return Look(
        samples=tuple(_sample(library, handle, device, node) for device, handle in enumerate(handles)),
        processes=tuple(item for device, handle in enumerate(handles) for item in _held(library, handle, device, node)),
    )


def _sample(library: Any, handle: Any, device: int, node: str) -> Sample:
    memory = _asked(library, "amdsmi_get_gpu_vram_usage", handle)
    activity = _asked(library, "amdsmi_get_gpu_activity", handle)
    power = _asked(library, "amdsmi_get_power_info", handle)
    watts = (number(power.get(key)) for key in ("socket_power", "current_socket_power", "average_socket_power"))
    return Sample(
        node=node,
        device=device,
        memory_used_mib=number(memory.get("vram_used")),
        memory_total_mib=number(memory.get("vram_total")),
        utilisation_percent=number(activity.get("gfx_activity")),
        memory_utilisation_percent=number(activity.get("umc_activity")),
        power_watts=next((value for value in watts if value), None),  # 0 stands for "not my sensor", no chip draws 0 W
        temperature_celsius=_temperature(library, handle, "HOTSPOT"),
        memory_temperature_celsius=_temperature(library, handle, "VRAM"),
    )


def _asked(library: Any, function: str, handle: Any, *more: Any) -> Any:
    """The library's answer, or nothing where it says that this chip does not tell."""
    try:
        return getattr(library, function)(handle, *more)
    except library.AmdSmiException:
        return {}


def _temperature(library: Any, handle: Any, sensor: str) -> float | None:
    kind, now = getattr(library.AmdSmiTemperatureType, sensor), library.AmdSmiTemperatureMetric.CURRENT
    return number(_asked(library, "amdsmi_get_temp_metric", handle, kind, now))


def _held(library: Any, handle: Any, device: int, node: str) -> list[Process]:
    return [
        Process(node=node, pid=int(item["pid"]), name=str(item["name"]), memory_used_mib=_vram(item), device=device)
        for item in _asked(library, "amdsmi_get_gpu_process_list", handle) or []
    ]


def _vram(item: dict[str, Any]) -> float | None:
    size = number((item.get("memory_usage") or {}).get("vram_mem", item.get("mem")))
    return None if size is None else size / MIB
