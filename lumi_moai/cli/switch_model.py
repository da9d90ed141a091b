"""`lumi-moai switch-model`: choose the default flavor, with MoAI's menu or without."""

import sys
from typing import TYPE_CHECKING

import click

from .show import warn

if TYPE_CHECKING:
    from ..flavor import Flavor
    from ..site import Site


@click.command()
@click.argument("flavor", required=False, metavar="[FLAVOR|NUMBER]")
@click.option("--site", metavar="SITE", help="Cluster; by default the one this machine belongs to, else `local`.")
def switch_model(flavor: str | None, site: str | None) -> None:
    """Choose the flavor of the next runs; without FLAVOR a menu asks for it.

    FLAVOR is a name (8xLarge), a full name (8xLarge.4096GB), or its number in the menu (10), in any case. A run that is
    under way keeps its flavor; the choice counts from the next one on.
    """
    from .. import catalog
    from ..catalog.settings import resolve_site
    from ..flavor import find

    where, menu = resolve_site(site), catalog.flavors()
    if flavor is None:
        _menu(where, menu)
    else:
        _switch(where, find(flavor, menu))


def _menu(site: "Site", menu: "tuple[Flavor, ...]") -> None:
    """Ask until `q`, `Q` or the end of the input; works at the end of a pipe as well."""
    from ..errors import RequestError
    from ..flavor import find

    chosen = _chosen(site)
    full = next((flavor.full_name for flavor in menu if flavor.name == chosen), "none chosen yet")
    click.echo(f"Current MoAI Accelerator: {full}")
    _list(menu, chosen)
    while (answer := _ask(len(menu))) not in ("q", "Q", None):
        try:
            picked = find(answer or "", menu)
            _switch(site, picked)
        except RequestError as error:
            click.echo(f"{error}. Enter a number from 1 to {len(menu)}, or q to leave.")
            continue
        _list(menu, picked.name)


def _chosen(site: "Site") -> str | None:
    """The present choice; a torn state file must not lock the user out of the menu that replaces it."""
    from .. import state
    from ..errors import RunError

    try:
        return state.chosen(site.name)
    except RunError as error:
        warn(str(error))
        return None


def _list(menu: "tuple[Flavor, ...]", chosen: str | None) -> None:
    click.echo()
    for flavor in menu:
        click.echo(f"{flavor.number}. {flavor.full_name}{'  *' if flavor.name == chosen else ''}")
    click.echo()


def _ask(count: int) -> str | None:
    """The next line of the input without its blanks, None at its end."""
    click.echo(f"Selection (1-{count}, q, Q): ", nl=False)
    line = sys.stdin.readline()  # click's streams read ahead, each anew, and would swallow the lines after this one
    if not line:
        click.echo()
        return None
    return line.strip()


def _switch(site: "Site", flavor: "Flavor") -> None:
    """Check that the site can take *flavor*, remember it, say so.

    Raises RequestError when no partition takes it, RunError when it cannot be remembered.
    """
    from .. import state
    from ..flavor import place

    place(site, flavor, minutes=site.policy.default_minutes)
    kept = state.choose(site.name, flavor.name)
    click.echo(f'The MoAI Accelerator model is successfully switched to  "{flavor.full_name}".')
    if kept:
        warn(f"the old state file was torn; it is kept as {kept}")
    _say_what_else_counts(site, flavor)


def _say_what_else_counts(site: "Site", flavor: "Flavor") -> None:
    """Runs that keep their flavor, and a setting that is stronger than the choice."""
    from ..catalog.settings import settings
    from ..monitor import active

    jobs = active(site.name)
    if jobs:
        which = f"Run {jobs[0]} keeps its" if len(jobs) == 1 else f"Runs {', '.join(jobs)} keep their"
        click.echo(f"{which} flavor; the choice counts from the next run on.", err=True)
    stronger = settings({}).get("flavor")
    if stronger and stronger.value != flavor.name:
        warn(f"{stronger.origin} sets flavor {stronger.value}, which comes before the choice made here")
