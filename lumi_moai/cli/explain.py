"""`lumi-moai explain`: a batch script in words."""

import click

from .show import json_option, show_json


@click.command()
@click.argument("script", metavar="SCRIPT")
@click.option("--site", metavar="SITE", help="Cluster; by default this machine's, else the one that has the partition.")
@json_option
def explain(script: str, site: str | None, as_json: bool) -> None:
    """Say line by line what a batch script asks for and starts, and what an hour of it costs. Nothing is run."""
    from dataclasses import asdict

    from ..gather.scripts import explained

    found = explained(script, site)
    if as_json:
        unit, per_hour = next(iter(found.totals.items()), (None, None))
        price = {"billing_units_per_hour": per_hour, "unit": unit, "prices": [asdict(price) for price in found.prices]}
        lines = [asdict(told) for told in found.lines]
        show_json({"path": script, "site": found.site, "lines": lines, **price, "notes": list(found.notes)})
        return
    for told in found.lines:
        click.echo(f"{told.line:>4}  {''.join(c if c.isprintable() else ' ' for c in told.text)}")
        click.echo(click.style(f"      ^ {told.meaning}", dim=True))
    if found.prices:
        total = " and ".join(f"{per_hour:g} {unit}" for unit, per_hour in found.totals.items())
        click.echo(f"An hour costs {total} on {found.site}: {'; '.join(price.resources for price in found.prices)}")
    for note in found.notes:
        click.echo(f"Note: {note}")
