"""`lumi-moai submit`."""

from functools import partial
from typing import Any

import click

from .options import OWN_ARGUMENTS, job_options, prepared
from .show import json_option, show_json


@click.command(context_settings=OWN_ARGUMENTS)
@click.option("--dry-run", is_flag=True, help="Print the script and submit nothing.")
@click.option("--wait", is_flag=True, help="Return when the job has ended, with exit code 1 if it failed.")
@click.option("--follow", is_flag=True, help="Show the log of rank 0 until the job has ended, as `logs --follow` does.")
@click.option("--resume", metavar="JOB|RUN_FOLDER", help="Go on from the last checkpoint of this run, which has ended,"
              " with its script; the flavor may be another.")  # fmt: skip
@json_option
@partial(job_options, required=False)
def submit(command: tuple[str, ...], dry_run: bool, wait: bool, follow: bool, as_json: bool, **options: Any) -> None:
    """Submit SCRIPT, written for one device, to run on all devices of a flavor.

    What follows the script's name is the script's own. Prints the job id, the run folder and the estimated price, and
    returns at once.
    """
    from ..launch.prepare import preview_folder, script_of
    from ..launch.run import from_submission
    from ..launch.submission import submit as hand_in

    resume = options.pop("resume")
    if not command and resume is None:
        raise click.UsageError("Missing argument 'SCRIPT [ARGUMENTS]...'.")
    plan = prepared(command, options, resume)
    if dry_run:
        click.echo(script_of(plan, preview_folder(plan))[1].text, nl=False)
        return
    submitted = hand_in(plan)
    _show(submitted, as_json)
    run = from_submission(submitted)
    if follow:
        from .logs import show_following

        show_following(run, 0)
    if wait or follow:
        from .wait import end_of

        end_of(run)


def _show(submitted: Any, as_json: bool) -> None:
    bill, job = submitted.estimate, submitted.job
    if as_json:
        show_json(
            {
                "job_id": submitted.job_id,
                "folder": str(submitted.folder.path),
                "billing_units": bill.billing_units,
                "unit": bill.unit,
                "hours": bill.hours,
                "partition": job.partition,
                "nodes": job.nodes,
                "devices": job.devices,
            }
        )
        return
    devices, nodes = _count(job.devices, "device"), _count(job.nodes, "node")
    click.echo(f"Job {submitted.job_id} submitted: {job.flavor}, {devices} on {nodes}, {job.partition}")
    click.echo(f"Run folder  {submitted.folder.path}")
    click.echo(f"At most     {bill.billing_units:g} {bill.unit} if it runs {bill.hours:g} h; billed is what it runs")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' if number != 1 else ''}"
