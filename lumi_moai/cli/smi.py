"""`lumi-moai smi`: the accelerators and what runs on them, in MoAI's tables."""

from typing import TYPE_CHECKING

import click

from .. import __version__
from .show import json_option, show_json, warn

if TYPE_CHECKING:
    from ..monitor.accelerators import Accelerator
    from ..monitor.runs import Run
    from ..site import Site


@click.command()
@click.option("-p", "physical", is_flag=True, help="One row for each physical device of the running jobs.")
@click.option("-i", "--idx", type=int, metavar="N", help="Only device N of the table.")
@click.option("-t", "--token", is_flag=True, help="Which project pays for each device.")
@click.option("-v", "--version", is_flag=True, help="Only the version.")
@click.option("--site", metavar="SITE", help="Cluster; by default the one this machine belongs to, else `local`.")
@json_option
def smi(idx: int | None, site: str | None, as_json: bool, **what: bool) -> None:
    """Show the accelerators: the default one (`*`) and those of the running jobs.

    Memory and utilization are those of all devices of a job together, read on its own nodes now. An idle accelerator
    shows `-`: it holds no devices.
    """
    if what["version"]:
        click.echo(f"lumi-moai {__version__}")
        return
    from ..catalog.settings import resolve_site

    where = resolve_site(site)
    rows = _rows(where, idx)
    if as_json or not what["token"]:
        rows = [_with_values(where, row) for row in rows]
    for row in rows:
        if row.reading and row.reading.why:
            warn(row.reading.why)
    if as_json:
        _show_json(where, rows)
    elif what["token"]:
        _show_tokens(rows)
    elif what["physical"]:
        _show_physical(rows)
    else:
        _show(rows)


def _rows(site: "Site", idx: int | None) -> "list[Accelerator]":
    """All rows, or the one asked for, so that no other devices are read.

    Raises RequestError when there is no row *idx*.
    """
    from .. import catalog
    from ..errors import RequestError
    from ..monitor.accelerators import accelerators

    rows = accelerators(site, catalog.flavors(), _default(site), _running(site))
    if idx is None:
        return rows
    if 0 <= idx < len(rows):
        return [rows[idx]]
    known = "only device 0" if len(rows) == 1 else f"devices 0 to {len(rows) - 1}"
    raise RequestError(f"there is no device {idx}; `lumi-moai smi` shows {known}")


def _with_values(site: "Site", row: "Accelerator") -> "Accelerator":
    """*row* with what its devices show now."""
    from dataclasses import replace

    from ..monitor import read

    return replace(row, reading=read(row.run, row.device, site.policy)) if row.run and row.device else row


def _running(site: "Site") -> "list[Run]":
    """The runs that hold devices; where Slurm does not answer, none and a warning."""
    from ..errors import SlurmError
    from ..monitor import running

    try:
        runs, remarks = running(site.name)
    except SlurmError as error:
        warn(f"nothing is known of the running jobs: {error}")
        return []
    for remark in remarks:
        warn(remark)
    return runs


def _default(site: "Site") -> str | None:
    """Name of the flavor that the next run gets: a setting, else the one chosen."""
    from .. import catalog, state
    from ..catalog.settings import settings
    from ..flavor import find

    setting = settings({}).get("flavor")
    word = setting.value if setting else state.chosen(site.name)
    return find(word, catalog.flavors()).name if word else None


def _show(rows: "list[Accelerator]") -> None:
    from ..monitor import table

    click.echo(table.devices(rows, __version__))
    if text := table.processes(rows):
        click.echo(text)


def _show_physical(rows: "list[Accelerator]") -> None:
    from ..monitor import table

    busy = [row for row in rows if row.run]
    for row in busy or rows[:1]:
        click.echo(table.chips(row))
    if not busy:
        click.echo("Nothing runs, and an idle accelerator holds no devices.", err=True)


def _show_tokens(rows: "list[Accelerator]") -> None:
    from ..catalog.settings import settings
    from ..monitor import table

    account = settings({}).get("account")
    click.echo(table.tokens(rows, account.value if account else None))


def _show_json(site: "Site", rows: "list[Accelerator]") -> None:
    show_json(
        {
            "version": __version__,
            "site": site.name,
            "devices": [row.as_json() for row in rows],
            "processes": [row.process_json() for row in rows if row.run],
        }
    )
