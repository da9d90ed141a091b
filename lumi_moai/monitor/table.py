"""The tables of `smi` as moreh-smi 24.5 draws them: its boxes, titles, widths and alignments. Pure.

Scripts that read moreh-smi split its lines at `|`; the order of the columns is their interface.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from .accelerators import Accelerator
from .sample import Sample


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column: its title, its least width without the two blanks on either side, and how its cells stand in it."""

    title: str
    width: int = 0
    align: str = "<"
    """As in a format: `<` left, `^` middle, `>` right. A lone `-` always stands left."""


# Titles with a blank in front: MoAI's Model and Process stand one place right of the middle.
_DEVICES = (
    Column(title="Device", width=6),
    Column(title="Name", width=17),
    Column(title=" Model", width=14),
    Column(title="Memory Usage", width=12, align="^"),
    Column(title="Total Memory", width=12),
    Column(title="Utilization", width=11, align="^"),
)
_PROCESSES = (
    Column(title="Device", width=6, align=">"),
    Column(title="Job ID", width=6),
    Column(title="PID", width=7),
    Column(title=" Process", width=28),
    Column(title="Memory Usage", width=12, align="^"),
)
_CHIPS = (
    Column(title="Dev", width=3, align=">"),
    Column(title="Location", width=11),
    Column(title="Dev Temp", align="^"),
    Column(title="Mem Temp", align="^"),
    Column(title="Dev Util", align="^"),
    Column(title="Mem Util", align="^"),
    Column(title="Mem Usage", align="^"),
    Column(title="Power", width=7, align="^"),
)
_TOKENS = (
    Column(title="Device", width=6),
    Column(title="Name", width=17),
    Column(title="Token", width=17),
    Column(title=" Model", width=14),
)


def devices(rows: Sequence[Accelerator], version: str) -> str:
    """One line an accelerator, under a line with the *version*."""
    head = f"Current Version: {version}  Latest Version: {version}"
    cells = [
        (
            f"{'* ' if row.default else '  '}{row.number}",
            row.name,
            row.model,
            _mib(row.memory_used_mib),
            _mib(row.memory_total_mib),
            _with_unit(row.utilisation_percent, "%"),
        )
        for row in rows
    ]
    return _box(_DEVICES, cells, head=head)


def processes(rows: Sequence[Accelerator]) -> str:
    """One line for each run under way, the title above; nothing when none is."""
    cells = [
        (str(row.number), row.run.job_id, _text(row.pid), row.run.command, _mib(row.memory_used_mib))
        for row in rows
        if row.run
    ]
    return f"\nProcesses:\n{_box(_PROCESSES, cells)}" if cells else ""


def chips(row: Accelerator) -> str:
    """One line for each device of the run on *row*; power stands on the first device of each package."""
    head = f"Device {row.number}  {row.model}  Job {row.run.job_id}" if row.run else f"Device {row.number}  {row.model}"
    first = {id(group[0]) for group in row.packages}
    cells = [_chip(sample, number, id(sample) in first) for number, sample in enumerate(row.samples)]
    return _box(_CHIPS, cells, head=head)


def _chip(sample: Sample, number: int, first_of_package: bool) -> tuple[str, ...]:
    used, total = sample.memory_used_mib, sample.memory_total_mib
    share = 100 * used / total if used is not None and total else None
    return (
        str(number),
        f"{sample.node}:{sample.device}",
        _with_unit(sample.temperature_celsius, "C"),
        _with_unit(sample.memory_temperature_celsius, "C"),
        _with_unit(sample.utilisation_percent, "%"),
        _with_unit(sample.memory_utilisation_percent, "%"),
        _with_unit(share, "%"),
        _with_unit(sample.power_watts, "W") if first_of_package else "",
    )


def tokens(rows: Sequence[Accelerator], account: str | None) -> str:
    """Device, Name, Token, Model; the token is the project that pays, never a secret."""
    cells = [
        (
            f"{'* ' if row.default else '  '}{row.number}",
            row.name,
            _text(row.run.account if row.run else account),
            row.model,
        )
        for row in rows
    ]
    return _box(_TOKENS, cells)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _mib(value: float | None) -> str:
    return _with_unit(value, "MiB")


def _with_unit(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.0f} {unit}"


def _box(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, head: str = "") -> str:
    widths = [max(column.width, len(column.title), *_lengths(rows, at)) for at, column in enumerate(columns)]
    inside = sum(widths) + 5 * len(columns) - 1  # two blanks on either side of each cell, one bar between
    line = f"+{'-' * inside}+"
    titles = _row([f"{column.title:^{width}}" for column, width in zip(columns, widths, strict=True)])
    body = [_row([_cell(*parts) for parts in zip(columns, widths, row, strict=True)]) for row in rows]
    top = [line, f"|{head:>{inside - 2}}  |"] if head else []
    return "\n".join([*top, line, titles, f"+{'=' * inside}+", *body, line])


def _lengths(rows: Sequence[Sequence[str]], at: int) -> list[int]:
    return [len(row[at]) for row in rows] or [0]


def _cell(column: Column, width: int, text: str) -> str:
    return f"{text:<{width}}" if text == "-" else f"{text:{column.align}{width}}"


def _row(cells: Sequence[str]) -> str:
    return "|" + "|".join(f"  {cell}  " for cell in cells) + "|"
