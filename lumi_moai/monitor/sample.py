"""What one look at a device shows, and how a look travels from the node: one JSON object of plain values."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from math import isfinite
from typing import Any, Self

from ..errors import RunError
from ..samples.line import grouped

MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One device at one moment. None is a value that the device does not tell, never a zero.

    Memory in MiB, utilisation in percent of the time, temperatures in degrees Celsius. `power_watts` is what the sensor
    shows: of the whole package where devices share one (`packages`).
    """

    node: str
    device: int
    """Index of the device on its node, as the job sees it."""
    memory_used_mib: float | None = None
    memory_total_mib: float | None = None
    utilisation_percent: float | None = None
    memory_utilisation_percent: float | None = None
    power_watts: float | None = None
    temperature_celsius: float | None = None
    memory_temperature_celsius: float | None = None


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process that holds device memory. `device` is None where the source counts per node."""

    node: str
    pid: int
    name: str
    memory_used_mib: float | None = None
    device: int | None = None


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything that one source told about the devices of one node, or of all nodes of a job."""

    samples: tuple[Sample, ...] = ()
    processes: tuple[Process, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The JSON form that `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The look that `as_json` wrote.

        Raises RunError for anything else.
        """
        if not isinstance(data, Mapping):
            raise RunError("it printed no JSON object")
        try:
            return cls(
                samples=tuple(Sample(**item) for item in data["samples"]),
                processes=tuple(Process(**item) for item in data["processes"]),
            )
        except (KeyError, TypeError) as error:
            raise RunError(f"it speaks another version of lumi-moai ({error})") from error

    def only(self, devices: Sequence[int]) -> Self:
        """Only the *devices* named, renumbered from 0 in their order."""
        wanted = {device: place for place, device in enumerate(sorted(devices))}
        return type(self)(
            samples=tuple(_moved(item, wanted[item.device]) for item in self.samples if item.device in wanted),
            processes=tuple(
                item if item.device is None else _moved(item, wanted[item.device])
                for item in self.processes
                if item.device is None or item.device in wanted
            ),
        )

    def only_pids(self, pids: Sequence[int]) -> Self:
        """Without the processes of other jobs on the same node."""
        kept = set(pids)
        return type(self)(samples=self.samples, processes=tuple(item for item in self.processes if item.pid in kept))


def _moved(item: Any, device: int) -> Any:
    return type(item)(**{**{field.name: getattr(item, field.name) for field in fields(item)}, "device": device})


def merged(looks: Sequence[Look]) -> Look:
    """One look of several nodes, in the order given."""
    return Look(
        samples=tuple(sample for look in looks for sample in look.samples),
        processes=tuple(process for look in looks for process in look.processes),
    )


def first_object(text: str) -> dict[str, Any]:
    """The first JSON object in *text*; warnings may stand before and after it.

    Raises RunError when there is none.
    """
    try:
        value, _ = json.JSONDecoder().raw_decode(text, max(text.find("{"), 0))
    except (ValueError, RecursionError) as error:
        raise RunError(f"it printed no JSON ({text[:60].strip()!r})") from error
    if not isinstance(value, dict):
        raise RunError(f"it printed no JSON object ({text[:60].strip()!r})")
    return value


def number(value: object) -> float | None:
    """The number in a vendor's text (`"95.0"`, `"95.0 W"`, `95`); None for `N/A` and for anything that is no number."""
    if isinstance(value, bool) or value is None:
        return None
    words = str(value).split()
    try:
        found = float(words[0].rstrip("%")) if words else float("nan")
    except ValueError:
        return None
    return found if isfinite(found) else None


def packages(samples: Sequence[Sample], per_package: int) -> tuple[tuple[Sample, ...], ...]:
    """*samples* grouped by the package whose power sensor they share.

    Which those are is read from who has a reading (`samples.grouped`).
    """
    nodes = [list(each) for _, each in groupby(samples, key=lambda sample: sample.node)]
    return tuple(
        tuple(node[place] for place in group)
        for node in nodes
        for group in grouped([sample.power_watts for sample in node], per_package)
    )
