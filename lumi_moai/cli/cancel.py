"""`lumi-moai cancel JOB`."""

import click


@click.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def cancel(jobs: tuple[str, ...]) -> None:
    """Cancel each JOB: a job id, 123_4 for one run of an array, or a run folder."""
    from ..launch.run import find_run

    runs = [find_run(job) for job in jobs]  # all of them are known before the first is touched
    for run in runs:
        if all(row.ended for row in run.states):
            click.echo(f"Job {run.job_id} had ended already, as {run.state}.")
            continue
        run.cancel()
        click.echo(f"Job {run.job_id} is cancelled; what it ran is billed.")
