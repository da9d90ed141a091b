"""`lumi-moai import`: a batch script becomes a flavor, a project file and a submit line."""

from pathlib import Path

import click

from .show import json_option, show_json


@click.command()
@click.argument("script", metavar="SCRIPT")
@click.option("--site", metavar="SITE", help="Cluster; by default this machine's, else the one that has the partition.")
@click.option("--write", is_flag=True, help="Also write lumi-moai.yaml beside the Python script; one there stays.")
@json_option
def import_script(script: str, site: str | None, write: bool, as_json: bool) -> None:
    """Turn a batch script into a flavor, a project file and a submit line, and say what would differ.

    The script itself stays as it is, and nothing of it is run.
    """
    from ..gather.scripts import converted, write_new
    from ..report.converted import as_dict, as_text, project_file

    found = converted(script, site)
    if write:
        beside = Path(script).parent / found.folder
        write_new((beside if beside.is_dir() else Path(script).parent) / "lumi-moai.yaml", project_file(found, script))
    if as_json:
        show_json(as_dict(found, script))
    else:
        click.echo(as_text(found, script), nl=False)
