"""`lumi-moai status`: all of the user's runs."""

import click

from .show import json_option, show_json, show_table, warn

_SHOWN_ENDED = 20


@click.command()
@click.argument("jobs", nargs=-1, metavar="[JOB]...")
@click.option(
    "--all", "show_all", is_flag=True, help=f"Also runs that ended long ago; by default the last {_SHOWN_ENDED}."
)
@json_option
def status(jobs: tuple[str, ...], show_all: bool, as_json: bool) -> None:
    """Show your runs: those that wait or run, and the last that ended. JOB limits it to some."""
    from dataclasses import asdict

    from .. import rundir
    from ..launch.states import states

    entries = [entry for entry in rundir.entries() if not jobs or entry.job_id in {job.split("_")[0] for job in jobs}]
    if jobs and not entries:
        rundir.find(jobs[0])  # says the sentence about a run that is not there
    ended = [entry for entry in entries if entry.state is not None]
    hidden = set() if show_all or jobs else {id(entry) for entry in ended[:-_SHOWN_ENDED]}
    found = states([entry for entry in entries if id(entry) not in hidden])
    for sentence in found.warnings:
        warn(sentence)
    if as_json:
        keys = ("job_id", "name", "state", "reason", "elapsed_seconds", "billing_units", "advice")
        show_json([{key: asdict(row)[key] for key in keys} for row in found.rows])
        return
    _show(found, len(hidden))


def _show(found: object, hidden: int) -> None:
    from ..launch.states import States
    from ..units import format_seconds

    if not isinstance(found, States) or not found.rows:
        click.echo("No runs yet; `lumi-moai submit --flavor Small train.py` starts one.")
        return
    columns = ("JOB", "NAME", "STATE", "ELAPSED", "BILLED", "REASON")
    rows = [
        (row.job_id, row.name, row.state, format_seconds(row.elapsed_seconds), f"{row.billing_units:.2f}", row.reason)
        for row in found.rows
    ]
    show_table(columns, rows, right=("ELAPSED", "BILLED"))
    for advice in dict.fromkeys(f"{row.reason}: {row.advice}" for row in found.rows if row.advice):
        click.echo(f"  {advice}")
    if hidden:
        click.echo(f"{hidden} older runs are not shown; --all shows them.")
    if found.age_seconds >= 1:
        click.echo(f"The queue was asked {found.age_seconds:.0f} s ago.")
