"""What a run cost against what was planned, with the reason for the gap; and the price of a million tokens."""

from collections.abc import Iterator
from dataclasses import dataclass

from ..logs import Log
from ..units import format_minutes, format_seconds
from ..usage import Bill, Usage
from .run import Planned, Report

_NOTHING = 0.005
"""Shares of the plan below this are rounding."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Billed less planned, in the unit of the bill, as the sum of its two parts."""

    billing_units: float
    by_time: float
    """Because it ran for another time than its limit."""
    by_price: float
    """Because an hour cost another price than was planned."""
    reasons: tuple[str, ...]


def gap(report: Report) -> Gap | None:
    """The gap between the plan and the bill of *report*; None where either is missing or they are of two units."""
    bill, planned = report.bill, report.planned
    if bill is None or planned is None or bill.unit != planned.unit or not (planned.hours and planned.billing_units):
        return None
    price = planned.billing_units / planned.hours
    by_time = (bill.hours - planned.hours) * price
    return Gap(
        billing_units=bill.billing_units - planned.billing_units,
        by_time=by_time,
        by_price=bill.billing_units - bill.hours * price,
        reasons=tuple(_reasons(report, bill, planned)),
    )


def _reasons(report: Report, bill: Bill, planned: Planned) -> Iterator[str]:
    share = bill.hours / planned.hours
    if abs(share - 1) > _NOTHING:
        ran = "has run" if report.outcome == "running" else "ran"
        limit = format_minutes(round(planned.hours * 60))
        starts = f" in {report.starts} starts, each of which is billed" if report.starts > 1 else ""
        yield f"it {ran} {format_seconds(bill.hours * 3600)} of {limit}{starts}"
    elif report.starts > 1:
        yield f"its {report.starts} starts are all billed"
    planned_price = planned.billing_units / planned.hours
    if bill.hours and abs(bill.per_hour / planned_price - 1) > _NOTHING:
        usage = report.accounting.usage if report.accounting else None
        blocked = _blocked(usage, planned) if usage else ""
        yield f"an hour cost {bill.per_hour:.4g} instead of {planned_price:.4g}{blocked}, decided by {bill.decided_by}"


def _blocked(usage: Usage, planned: Planned) -> str:
    """What was blocked otherwise than planned."""
    pairs = (("nodes", usage.nodes, planned.nodes), ("devices", usage.devices, planned.devices))
    other = [f"{took} {name} instead of {plan}" for name, took, plan in pairs if plan is not None and took != plan]
    return f" with {' and '.join(other)}" if other else ""


def per_million_tokens(report: Report) -> tuple[float | None, float | None]:
    """Billing units of a million tokens: at the steady rate, and over the whole run with its start-up and its end."""
    log, bill = report.log, report.bill
    rate = _tokens_per_second(report, log) if log else None
    if not (log and bill and rate and bill.billing_units):
        return None, None
    steady = bill.per_hour / (rate * 3600) * 1e6
    steps = _steps(log)
    if log.step_seconds is None or steps is None:
        return steady, None
    return steady, bill.billing_units / (steps * log.step_seconds * rate) * 1e6


def _steps(log: Log) -> int | None:
    """How many steps the log spans; None where it does not tell, as with epochs of unknown length."""
    if log.max_step is None or log.first_step is None or log.last_step is None:
        return None
    if not log.new_epochs or log.first_epoch is None or log.last_epoch is None:
        return log.max_step - min(log.first_step, log.max_step) + 1
    if log.total_steps is None or log.last_epoch < log.first_epoch:
        return None
    return max(1, (log.last_epoch - log.first_epoch) * log.total_steps + log.last_step - log.first_step + 1)


def _tokens_per_second(report: Report, log: Log) -> float | None:
    """Of all devices together; None where it is that of one device and their number is not known."""
    rate = log.tokens_per_second
    if rate is None or rate.scope == "total":
        return rate.median if rate else None
    devices = (report.accounting.usage.devices if report.accounting else 0) or report.world_size
    return rate.median * devices if devices else None
