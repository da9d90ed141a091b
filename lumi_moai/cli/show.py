"""How commands print: one JSON object for machines, plain text or a table for people."""

import json
import math
from collections.abc import Iterable, Sequence

import click

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON value for machines and nothing else."
)


def show_json(value: object) -> None:
    """Print *value* as the only JSON on stdout; not-a-number becomes null, as JSON has none."""
    click.echo(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table as wide as its words; the columns named in *right* are flush right.

    Colours and lines come only to a terminal, so that a pipe gets plain columns.
    """
    texts = [[_cell(cell) for cell in row] for row in rows]
    widths = [max([len(name), *(len(row[place]) for row in texts)]) for place, name in enumerate(columns)]
    for line in [list(columns), *texts]:
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for cell, width, name in zip(line, widths, columns, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def warn(sentence: str) -> None:
    """Say *sentence* on stderr."""
    click.echo(f"Warning: {sentence}", err=True)
