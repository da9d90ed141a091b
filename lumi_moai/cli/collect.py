"""`lumi-moai collect`: what a run gave, took and cost."""

from pathlib import Path

import click

from .show import json_option, show_json, warn


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="JOB|FOLDER|LOG_FILE...")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print one line of CSV per run.")
@click.option("--site", metavar="SITE", help="Where jobs ran that lumi-moai did not submit; by default this machine's.")
@click.option(
    "--format", "formats", multiple=True, metavar="FILE", help="A YAML file that describes a log's step lines."
)
def collect(words: tuple[str, ...], as_json: bool, as_csv: bool, site: str | None, formats: tuple[str, ...]) -> None:
    """Report on runs: steps, loss, throughput, usage, bill, and how they ended.

    Give a job id, a run folder, log files or a folder of logs. A job of an array without an index reports on all of its
    runs. The first logged step of a run is told apart, because it holds the start-up.
    """
    from .. import gather, report
    from ..catalog.settings import resolve_site

    found = gather.collect(words, resolve_site(site), [Path(name) for name in formats])
    for sentence in found.warnings:
        warn(sentence)
    if as_json:
        show_json(report.as_dict(found))
    else:
        click.echo(report.as_csv([found]) if as_csv else report.as_text(found), nl=False)
