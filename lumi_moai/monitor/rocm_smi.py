"""Source `rocm-smi`: the program of that name, present on every node with ROCm, read as JSON.

Written against `python_smi_tools/rocm_smi.py` of ROCm/rocm_smi_lib at 5.6.0, 6.0.0, 6.2.0 and rsmi 7 (a129571, October
2024). Every value is text. What changed between them:

- power: `Average Graphics Package Power (W)`; from 6.0 on `Current Socket Graphics Package Power (W)` where the chip
  has it; the second die of a package always says `Average ...: N/A (Secondary die)`,
- memory activity: `GPU memory use (%)`; from 6.1 on `GPU Memory Read/Write Activity (%)`,
- processes stand under `system` as `PIDn: name, devices, bytes, ...`, in lower case, in all of them.
"""

from collections.abc import Mapping
from shutil import which
from typing import Any

from ..errors import RunError
from ..slurm import call
from .sample import MIB, Look, Process, Sample, first_object, number

# --showpids takes an optional word, so it must not stand before another argument that could be taken for it.
WORDS = (
    "rocm-smi",
    *("--showuse", "--showmemuse", "--showmeminfo", "vram", "--showpower", "--showtemp"),
    *("--showpids", "--json"),
)

_POWER = ("Current Socket Graphics Package Power (W)", "Average Graphics Package Power (W)")
_MEMORY_ACTIVITY = ("GPU Memory Read/Write Activity (%)", "GPU memory use (%)")
# The junction is the hottest point and what the chip throttles on; dies without that sensor have an edge.
_TEMPERATURE = ("Temperature (Sensor junction) (C)", "Temperature (Sensor edge) (C)")
_MEMORY_TEMPERATURE = ("Temperature (Sensor memory) (C)", "Temperature (Sensor HBM 0) (C)")


def read(node: str) -> Look:
    """The devices of this machine.

    Raises RunError when rocm-smi is not here or shows no device; SlurmError when it fails.
    """
    if which(WORDS[0]) is None:
        raise RunError("it is not installed")
    return parse(call(WORDS, seconds=20), node)


def parse(text: str, node: str) -> Look:
    """What `rocm-smi --json` printed on *node*.

    Raises RunError when there is no JSON object with a card in it.
    """
    cards = first_object(text)
    samples = tuple(
        _sample(card, int(name.removeprefix("card")), node)
        for name, card in sorted(cards.items(), key=_card_order)
        if _is_card(name, card)
    )
    if not samples:
        raise RunError("it shows no device")
    return Look(samples=samples, processes=_processes(cards.get("system"), node))


def _is_card(name: str, card: object) -> bool:
    return name.startswith("card") and name[4:].isdecimal() and isinstance(card, dict)


def _card_order(item: tuple[str, Any]) -> tuple[int, str]:
    return (len(item[0]), item[0])  # card10 after card9


def _sample(card: Mapping[str, Any], device: int, node: str) -> Sample:
    return Sample(
        node=node,
        device=device,
        memory_used_mib=_mib(card.get("VRAM Total Used Memory (B)")),
        memory_total_mib=_mib(card.get("VRAM Total Memory (B)")),
        utilisation_percent=number(card.get("GPU use (%)")),
        memory_utilisation_percent=_first(card, _MEMORY_ACTIVITY),
        power_watts=_first(card, _POWER) or None,  # no package draws 0 W: old versions print 0.0 for the second die
        temperature_celsius=_first(card, _TEMPERATURE),
        memory_temperature_celsius=_first(card, _MEMORY_TEMPERATURE),
    )


def _first(card: Mapping[str, Any], keys: tuple[str, ...]) -> float | None:
    return next((value for key in keys if (value := number(card.get(key))) is not None), None)


def _mib(value: object) -> float | None:
    size = number(value)
    return None if size is None else size / MIB


def _processes(system: object, node: str) -> tuple[Process, ...]:
    if not isinstance(system, dict):
        return ()
    found = [_process(key, str(value), node) for key, value in system.items()]
    return tuple(sorted((process for process in found if process), key=lambda process: process.pid))


def _process(key: str, value: str, node: str) -> Process | None:
    """`PID12345: python, 8, 12884901888, 0, unknown`; the name may hold separators, so count from the right."""
    pid = key.removeprefix("PID")
    parts = value.rsplit(", ", 4)
    if not (key.startswith("PID") and pid.isdecimal() and len(parts) == 5):
        return None
    return Process(node=node, pid=int(pid), name=parts[0], memory_used_mib=_mib(parts[2]))
