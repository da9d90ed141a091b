"""`lumi-moai wait JOB`."""

from typing import Any

import click


@click.command()
@click.argument("job")
@click.option(
    "--timeout", type=float, metavar="SECONDS", help="Give up after that time, with exit code 1; the job goes on."
)
def wait(job: str, timeout: float | None) -> None:
    """Wait until JOB has ended. Exit code 0 when it completed, 1 otherwise."""
    from ..launch.run import find_run

    end_of(find_run(job), timeout)


def end_of(run: Any, seconds: float | None = None) -> None:
    """Wait for *run*, saying each change on stderr, and leave with its exit code."""
    said: list[str] = []

    def tell(rows: list[Any]) -> None:
        words = ", ".join(f"{row.job_id} {row.state}{f' ({row.reason})' if row.reason else ''}" for row in rows[:5])
        if words not in said[-1:]:
            click.echo(f"Job {words}{' ...' if len(rows) > 5 else ''}", err=True)
            said.append(words)

    try:
        state = run.wait(seconds=seconds, tell=tell)
    except KeyboardInterrupt:
        click.echo(f"\nJob {run.job_id} goes on; `lumi-moai cancel {run.job_id}` would end it.", err=True)
        raise SystemExit(130) from None
    if state != "COMPLETED":
        click.echo(f"Job {run.job_id} ended as {state}; `lumi-moai collect {run.job_id}` shows why.", err=True)
        raise SystemExit(1)
