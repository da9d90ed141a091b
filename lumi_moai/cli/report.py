"""`lumi-moai report`: everything about one run or several as one HTML file."""

from pathlib import Path

import click

from .show import json_option, show_json, warn


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="JOB|RUN_FOLDER|LOG_FILE...")
@click.option("--output", "-o", metavar="FILE", default="report.html", show_default=True, help="The file to write.")
@click.option("--force", is_flag=True, help="Replace a file that lumi-moai did not write.")
@json_option
@click.option("--site", metavar="SITE", help="Where jobs ran that lumi-moai did not submit; by default this machine's.")
def report(words: tuple[str, ...], *, output: str, force: bool, as_json: bool, site: str | None) -> None:
    """Write one HTML file with charts: loss, throughput, memory, restarts, bill, binding, environment, scaling.

    Give job ids, run folders or log files, as to `collect`. The file needs no network and may be sent to anybody.
    """
    from ..catalog.settings import resolve_site
    from ..gather.stories import compared, stories
    from ..report.drawing import MARK
    from ..report.html import as_html
    from ..report.page import page
    from ..rundir import check_ours, replace_ours

    path, mark = Path(output), MARK.encode()
    check_ours(path, mark=mark, force=force)  # before the logs are read, which may take a minute
    told = stories(words, resolve_site(site))
    for sentence in dict.fromkeys(sentence for story in told for sentence in story.report.warnings):
        warn(sentence)
    text = as_html(page(told, compared(told)))
    replace_ours(path, text.encode(errors="replace"), mark=mark, force=force)
    if as_json:
        show_json({"file": str(path), "bytes": path.stat().st_size, "runs": [story.title for story in told]})
    else:
        click.echo(f"Report      {path}, {path.stat().st_size / 1e6:.1f} MB")
