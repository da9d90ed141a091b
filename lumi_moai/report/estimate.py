"""The price of a job before it runs, or of one that ran: for people and for machines."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..units import format_gib, format_minutes
from ..usage import Balance, Bill, Usage
from .text import count, units

_WIDTH = 12


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A usage with its price. `cheaper` is the same work for less, None where there is no cheaper way."""

    title: str
    site: str
    usage: Usage
    bill: Bill
    cheaper: tuple[Usage, Bill] | None = None
    later: tuple[tuple[Usage, Bill], ...] = ()
    """The further components of a heterogeneous job."""
    tasks: int = 1
    """Runs of an array; `bill` is that of one of them."""
    actual: bool = False
    """Whether the job ran and this is what it took."""
    balance: Balance | None = None
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def billing_units(self) -> float:
        """The price of all tasks, with the components that are billed in the same unit."""
        return sum(bill.billing_units for _, bill in self._alike) * self.tasks

    @property
    def per_hour(self) -> float:
        """The same for an hour."""
        return sum(bill.per_hour for _, bill in self._alike) * self.tasks

    @property
    def components(self) -> tuple[tuple[Usage, Bill], ...]:
        """All components; a plain job has one."""
        return ((self.usage, self.bill), *self.later)

    @property
    def _alike(self) -> list[tuple[Usage, Bill]]:
        return [one for one in self.components if one[1].unit == self.bill.unit]

    @property
    def upper_bound(self) -> float | None:
        """What it may cost at most, None where that is certain."""
        if all(bill.upper_bound is None for _, bill in self._alike):
            return None
        return sum(bill.upper_bound or bill.billing_units for _, bill in self._alike) * self.tasks


def as_dict(estimate: Estimate) -> dict[str, Any]:
    """The JSON object of *estimate*; the keys up to `cheaper` never change."""
    usage, bill = estimate.usage, estimate.bill
    return {
        "billing_units": estimate.billing_units,
        "unit": bill.unit,
        "hours": bill.hours,
        "partition": usage.partition,
        "nodes": sum(one.nodes for one, _ in estimate.components),
        "devices": sum(one.devices for one, _ in estimate.components),
        "decided_by": bill.decided_by,
        "cheaper": _cheaper(estimate),
        "billing_units_per_hour": estimate.per_hour,
        "billing_units_upper_bound": estimate.upper_bound,
        "cores": sum(one.cores for one, _ in estimate.components),
        "memory_gib": sum(one.memory_gib for one, _ in estimate.components),
        "components": [_component(estimate, *one) for one in estimate.components] if estimate.later else [],
        "tasks": estimate.tasks,
        "actual": estimate.actual,
        "site": estimate.site,
        "allocation": _allocation(estimate),
        "notes": list(estimate.notes),
    }


def _component(estimate: Estimate, usage: Usage, bill: Bill) -> dict[str, Any]:
    kept = ("partition", "nodes", "devices", "cores", "memory_gib")
    return {
        **{name: value for name, value in asdict(usage).items() if name in kept},
        "billing_units": bill.billing_units * estimate.tasks,
        "unit": bill.unit,
        "decided_by": bill.decided_by,
    }


def _cheaper(estimate: Estimate) -> dict[str, Any] | None:
    if estimate.cheaper is None:
        return None
    usage, bill = estimate.cheaper
    kept = ("partition", "nodes", "devices", "cores", "memory_gib")
    return {
        "billing_units": bill.billing_units * estimate.tasks,
        **{name: value for name, value in asdict(usage).items() if name in kept},
        "decided_by": bill.decided_by,
    }


def _allocation(estimate: Estimate) -> dict[str, Any] | None:
    found = estimate.balance
    if found is None:
        return None
    share = estimate.billing_units / found.left if found.left > 0 else None
    return {**asdict(found), "left": found.left, "share_of_left": share}


def as_text(estimate: Estimate) -> str:
    """*estimate* in lines of text."""
    return "".join(f"{word:<{_WIDTH}}{text}\n" for word, text in _lines(estimate))


def _lines(estimate: Estimate) -> Iterator[tuple[str, str]]:
    usage, bill = estimate.usage, estimate.bill
    yield "Job", f"{estimate.title} on {estimate.site}, partition {usage.partition}"
    yield "Resources", _resources(usage)
    for number, (one, other) in enumerate(estimate.later, 1):
        price = f"{units(other.billing_units * estimate.tasks)} {other.unit}"
        yield "", f"component {number}: partition {one.partition}, {_resources(one)}: {price}"
    times = f" x {estimate.tasks} tasks" if estimate.tasks > 1 else ""
    yield "Time", f"{_hours(usage.hours)}{times}{', as it ran' if estimate.actual else ''}"
    yield "Price", f"{units(estimate.billing_units)} {bill.unit}{_per_hour(estimate)}, decided by {bill.decided_by}"
    if (most := estimate.upper_bound) is not None:
        yield "", f"at most {units(most)}, if the site rounds up on each node"
    if estimate.cheaper:
        yield "Cheaper", _advice(estimate, *estimate.cheaper)
    if estimate.balance:
        yield "Allocation", _balance(estimate, estimate.balance)
    for place, note in enumerate(estimate.notes):
        yield "Note" if place == 0 else "", note


def _resources(usage: Usage) -> str:
    devices = f", {count(usage.devices, 'device')}" if usage.devices else ""
    return f"{count(usage.nodes, 'node')}{devices}, {count(usage.cores, 'core')}, {format_gib(usage.memory_gib)} in all"


def _hours(hours: float) -> str:
    seconds = round(hours * 3600)
    return format_minutes(seconds // 60) if seconds % 60 == 0 else f"{seconds:,} seconds"


def _per_hour(estimate: Estimate) -> str:
    if estimate.actual or not estimate.bill.hours:
        return ""
    return f" ({units(estimate.per_hour)} an hour)"


def _advice(estimate: Estimate, usage: Usage, bill: Bill) -> str:
    now = estimate.usage
    changes = []
    if usage.partition != now.partition:
        changes.append(f"partition {usage.partition}")
    if usage.nodes != now.nodes:
        changes.append(count(usage.nodes, "node"))
    if usage.cores < now.cores:
        changes.append(count(usage.cores, "core"))
    if usage.memory_gib < now.memory_gib:
        changes.append(f"{format_gib(usage.memory_gib)} of memory in all")
    share = 100 * (1 - bill.billing_units / estimate.bill.billing_units)
    price = units(bill.billing_units * estimate.tasks)
    return f"{price} {bill.unit} ({share:.0f} % less) with {', '.join(changes)}, if that is enough"


def _balance(estimate: Estimate, balance: Balance) -> str:
    if balance.left <= 0:
        return (
            f"{balance.account} has used {units(balance.used)} of {units(balance.alloc)} {balance.unit}: none are left"
        )
    share = 100 * estimate.billing_units / balance.left
    verb = "took" if estimate.actual else "takes"
    return (
        f"{balance.account} has {units(balance.left)} of {units(balance.alloc)} {balance.unit} left; "
        f"this {verb} {share:.3g} %{'' if share <= 100 else ', more than there is'}"
    )
