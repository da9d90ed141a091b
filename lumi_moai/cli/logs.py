"""`lumi-moai logs JOB`: what a run printed."""

from typing import Any

import click


@click.command()
@click.argument("job")
@click.option("--rank", "-r", default=0, show_default=True, help="Whose log.")
@click.option("--batch", is_flag=True, help="The log of the batch script instead: what Slurm and modules said.")
@click.option("--follow", "-F", is_flag=True, help="Go on until the job has ended, through requeues.")
def logs(job: str, rank: int, batch: bool, follow: bool) -> None:
    """Print the log of JOB: a job id, 123_4 for one run of an array, or a run folder."""
    from ..launch.run import find_run

    run = find_run(job)
    if batch:
        _show_batch(run)
    elif follow:
        show_following(run, rank)
    else:
        _show(run, rank)


def _show(run: Any, rank: int) -> None:
    """The log in pieces, so that its size does not matter."""
    path = run.log_file(rank)
    if path is None:
        _show_batch(run)
        click.echo(f"Rank {rank} of job {run.job_id} has written nothing yet; the job is {run.state}.", err=True)
        return
    with open(path, encoding="utf-8", errors="replace") as file:
        while piece := file.read(1 << 20):
            click.echo(piece, nl=False)
    _name_first(run, rank)


def _name_first(run: Any, rank: int) -> None:
    """Whose log to read where not that of *rank* tells why the run failed."""
    if (first := run.first_failed) is not None and first != rank:
        click.echo(f"Rank {first} failed first; `lumi-moai logs {run.job_id} --rank {first}` shows why.", err=True)


def _show_batch(run: Any) -> None:
    for path in run.folder.logs.glob(f"*-{run.job_id}.log"):
        click.echo(path.read_text(encoding="utf-8", errors="replace"), nl=False)


def show_following(run: Any, rank: int) -> None:
    """Print the log as it grows; Ctrl-C ends the looking, not the job."""
    from ..launch.run import follow

    try:
        for piece in follow(run, rank):
            click.echo(piece, nl=False)
        _name_first(run, rank)
    except KeyboardInterrupt:
        click.echo(f"\nJob {run.job_id} goes on; `lumi-moai cancel {run.job_id}` would end it.", err=True)
        raise SystemExit(130) from None
