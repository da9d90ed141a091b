"""`lumi-moai estimate`: what a job will cost, or did."""

from typing import Any

import click

from .show import json_option, show_json, warn


@click.command()
@click.argument("what", required=False, metavar="[JOB|RUN_FOLDER|SCRIPT]")
@click.option("--flavor", "-f", metavar="FLAVOR", help="Size of the accelerator; by default the one chosen for good.")
@click.option("--site", metavar="SITE", help="Cluster; by default the one this machine belongs to, else `local`.")
@click.option("--account", "-A", metavar="PROJECT", help="Project whose balance is shown; else $SBATCH_ACCOUNT.")
@click.option("--partition", "-p", metavar="NAME", help="Queue; with the resources below, or to move a flavor there.")
@click.option("--nodes", "-N", type=click.IntRange(1), help="Nodes; by default 1.")
@click.option("--devices", "-d", type=click.IntRange(0), help="Devices on each node, as sbatch's --gpus-per-node.")
@click.option("--cpus", "-c", type=click.IntRange(1), help="Cores on each node.")
@click.option("--mem", metavar="SIZE", help="Memory on each node, as sbatch's --mem: 480G; 0 is all of it.")
@click.option("--time", "-t", metavar="TIME", help="Time: 90m, 12:00:00, 1-00:00:00; by default the site's.")
@json_option
def estimate(what: str | None, as_json: bool, **words: str | int | None) -> None:
    """Tell what a job costs, which resource decides it, and whether the same work could cost less.

    Give a flavor, or a partition with its resources, or a batch script (its #SBATCH lines are read, anybody's), or the
    id of a job that ran, which shows what it took.
    """
    from .. import gather
    from ..report import estimate as report

    found = gather.estimate(what, _settings(words), _asked(words))
    for sentence in found.warnings:
        warn(sentence)
    if as_json:
        show_json(report.as_dict(found))
    else:
        click.echo(report.as_text(found), nl=False)


def _settings(words: dict[str, str | int | None]) -> dict[str, str | None]:
    return {name: str(words[name]) for name in ("flavor", "site", "account") if words[name] is not None}


def _asked(words: dict) -> Any:
    from ..sbatch import Asked
    from ..units import parse_gib, parse_minutes

    return Asked(
        partition=words["partition"],
        nodes=words["nodes"],
        devices_per_node=words["devices"],
        cpus_per_task=words["cpus"],
        memory_gib=None if words["mem"] is None else parse_gib(words["mem"]),
        minutes=None if words["time"] is None else parse_minutes(words["time"]),
    )
