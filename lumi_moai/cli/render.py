"""`lumi-moai render`: show the script, and with --explain the reason of every line."""

from typing import Any

import click

from .options import OWN_ARGUMENTS, job_options, prepared
from .show import json_option, show_json


@click.command(context_settings=OWN_ARGUMENTS)
@click.option("--explain", is_flag=True, help="Say who decided each line, why, and where that is written.")
@json_option
@job_options
def render(command: tuple[str, ...], explain: bool, as_json: bool, **options: Any) -> None:
    """Print the script that `submit` would submit for SCRIPT. Nothing is made and nobody is asked."""
    from dataclasses import asdict

    from ..launch.prepare import preview_folder, script_of

    plan = prepared(command, options)
    job, script = script_of(plan, preview_folder(plan))
    if as_json:
        show_json({"script": script.text, "lines": [asdict(line) for line in script.lines], "job": job.as_json()})
    elif explain:
        _show_reasons(script)
    else:
        click.echo(script.text, nl=False)


def _show_reasons(script: Any) -> None:
    """Each line, and below it who decided it and why; a reason that goes on is said once."""
    said = None
    for line in script.lines:
        click.echo(line.text)
        told = (line.origin, line.reason, line.source)
        if line.reason and told != said:
            source = f" [{line.source}]" if line.source else ""
            click.echo(click.style(f"      ^ {line.origin}: {line.reason}{source}", dim=True))
        said = told
