"""`lumi-moai scale`: what more devices bring, and from where on they no longer pay."""

from pathlib import Path
from typing import Any, Literal

import click

from .show import json_option, show_json, warn


@click.command()
@click.argument("words", nargs=-1, required=True, metavar="RUN RUN...")
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print one line of CSV per run.")
@click.option("--plot", "as_plot", is_flag=True, help="Draw the throughput over the devices in the terminal.")
@click.option("--output", "-o", metavar="FILE", help="Write the chart to a file that ends in .png or .svg.")
@click.option("--force", is_flag=True, help="Replace a file that lumi-moai did not write.")
@click.option("--kind", type=click.Choice(["strong", "weak"]), help="What the runs are, where no log tells.")
@click.option(
    "--pays",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="What an added device must bring, as part of what a device of the smallest run brings.",
)
@click.option("--site", metavar="SITE", help="Where jobs ran that lumi-moai did not submit; by default this machine's.")
def scale(
    words: tuple[str, ...],
    *,
    as_json: bool,
    as_csv: bool,
    as_plot: bool,
    output: str | None,
    force: bool,
    kind: Literal["strong", "weak"] | None,
    pays: float,
    site: str | None,
) -> None:
    """Compare runs of different sizes: strong and weak efficiency, price, and where one more node no longer pays.

    Give job ids, run folders or log files, as to `collect`.
    """
    from .. import scaling
    from ..catalog.settings import resolve_site
    from ..gather.stories import measured, stories
    from ..report import scale as report

    told = stories(words, resolve_site(site))
    for sentence in dict.fromkeys(sentence for story in told for sentence in story.report.warnings):
        warn(sentence)
    found = scaling.scale(map(measured, told), pays=pays, kind=kind)
    if output:
        _write(found, output, force)
    if as_json:
        show_json(report.as_dict(found))
    elif as_csv:
        click.echo(report.as_csv(found), nl=False)
    else:
        click.echo(report.as_text(found), nl=False)
        if as_plot:
            from ..report.drawing import terminal

            click.echo(f"\n{terminal(found)}")


def _write(found: Any, output: str, force: bool) -> None:
    from ..report.charts import scaling_chart
    from ..report.drawing import MARK, picture
    from ..rundir import replace_ours

    replace_ours(Path(output), picture(scaling_chart(found), output), mark=MARK.encode(), force=force)
    click.echo(f"Chart       {output}", err=True)
