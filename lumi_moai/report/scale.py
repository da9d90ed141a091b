"""A scaling as a table for people, as JSON, as CSV, and as the points of a plot."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from ..scaling import Gain, Measured, Scaled, Scaling
from .text import count

_COLUMNS = (
    "name", "flavor", "nodes", "devices", "rate", "unit", "rate_per_device", "work", "work_unit", "strong_efficiency",
    "weak_efficiency", "billing_units_per_hour", "billing_units_per_million", "billing_unit",
)  # fmt: skip


def as_dict(scaling: Scaling) -> dict[str, Any]:
    """The JSON object of *scaling*; rates in items a second, prices for a million items."""
    last, bad = scaling.last_that_pays, scaling.first_that_does_not
    return {
        "kind": scaling.kind,
        "pays_from": scaling.pays,
        "last_that_pays": _size(last) if last else None,
        "first_that_does_not": {**_size(bad.after), "gain": bad.gain} if bad else None,
        "gains": [
            {"from_devices": gain.before.devices, "to_devices": gain.after.devices, "gain": gain.gain}
            for gain in scaling.gains
        ],
        "runs": [_line(each) for each in scaling.runs],
        "notes": list(scaling.notes),
    }


def _size(run: Measured) -> dict[str, Any]:
    return {"devices": run.devices, "nodes": run.nodes, "flavor": run.flavor}


def _line(each: Scaled) -> dict[str, Any]:
    run = each.run
    values = (
        run.name, run.flavor, run.nodes, run.devices, run.rate, run.unit, run.per_device, run.work, run.work_unit,
        each.strong, each.weak, run.units_per_hour, run.price, run.billing_unit,
    )  # fmt: skip
    return dict(zip(_COLUMNS, values, strict=True))


def as_csv(scaling: Scaling) -> str:
    """One line a run below a line of column names; an empty cell is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_line(each) for each in scaling.runs)
    return text.getvalue()


def table(scaling: Scaling) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Column names and cells for people; `-` is not known."""
    unit = next((each.run.unit for each in scaling.runs if each.run.unit), None) or "items"
    price = next((each.run.billing_unit for each in scaling.runs if each.run.billing_unit), None) or "units"
    words = ("run", "flavor", "nodes", "devices", f"{unit}/s", "per device", "strong", "weak")
    return (*words, f"{price} per million {unit}"), [_cells(each) for each in scaling.runs]


def _cells(each: Scaled) -> tuple[str, ...]:
    run = each.run
    numbers = (run.nodes, run.devices, run.rate, run.per_device)
    return (
        run.name,
        run.flavor or "-",
        *("-" if value is None else number(value) for value in numbers),
        *("-" if value is None else f"{100 * value:.1f} %" for value in (each.strong, each.weak)),
        "-" if run.price is None else f"{run.price:.4g}",
    )


def number(value: float) -> str:
    """*value* with commas from a thousand on, with four digits below."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def sentences(scaling: Scaling) -> Iterator[str]:
    """What the table means, in words."""
    if scaling.kind:
        still = {"strong": "every step does the same work", "weak": "every device does the same work"}[scaling.kind]
        yield f"{scaling.kind.capitalize()} scaling: {still}, so 100 % is the smallest run's rate on every device."
    bad, last = scaling.first_that_does_not, scaling.last_that_pays
    if bad and last:
        yield f"Up to {_sized(last)} more of them pay; {_lost(bad, scaling.pays)}."
    elif last:
        yield (
            f"Every step pays up to the largest run, {_sized(last)}; where more no longer pay lies beyond."
            f" An added device pays while it brings {100 * scaling.pays:.0f} % of one of the smallest run."
        )
    yield from (f"{note}." for note in scaling.notes)


def _sized(run: Measured) -> str:
    nodes = f" on {count(run.nodes, 'node')}" if run.nodes else ""
    return f"{count(run.devices or 0, 'device')}{nodes}"


def _lost(bad: Gain, pays: float) -> str:
    brings = f"brings {100 * bad.gain:.0f} % of a device of the smallest run" if bad.gain > 0 else "brings nothing"
    times = f", so what it adds costs {1 / bad.gain:.1f} times as much" if bad.gain > 0 else ""
    return f"of the next size, {_sized(bad.after)}, each added device {brings}{times} (the limit is {100 * pays:.0f} %)"


def as_text(scaling: Scaling) -> str:
    """The table and its meaning."""
    columns, rows = table(scaling)
    lines = [tuple(name.upper() for name in columns), *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    text = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([*text, "", *sentences(scaling)]) + "\n"
