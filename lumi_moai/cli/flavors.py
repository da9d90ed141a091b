"""`lumi-moai flavors`: the menu with what each flavor is on a site, and what an hour of it costs."""

from typing import TYPE_CHECKING, Any

import click

from .show import json_option, show_json, show_table

if TYPE_CHECKING:
    from ..flavor import Flavor, Placement
    from ..site import Site

_RIGHT = ("", "DEVICES", "NODES", "GB", "PER HOUR")


@click.command()
@click.option("--site", metavar="SITE", help="Cluster; by default the one this machine belongs to, else `local`.")
@json_option
def flavors(site: str | None, as_json: bool) -> None:
    """Show all flavors: devices, nodes, memory, partition and price of an hour. `*` marks the chosen one."""
    from .. import catalog, state
    from ..catalog.settings import resolve_site

    where = resolve_site(site)
    lines = [_line(where, flavor) for flavor in catalog.flavors()]
    if as_json:
        show_json([line for line, _ in lines])
        return
    _show(where, lines, state.chosen(where.name))


def _line(site: "Site", flavor: "Flavor") -> tuple[dict[str, Any], str]:
    """The JSON of one flavor, and why the site cannot take it, or nothing. GB are the menu's, 10^9 bytes."""
    from ..errors import RequestError
    from ..flavor import place

    head = {"name": flavor.name, "number": flavor.number}
    try:
        placement = place(site, flavor, minutes=site.policy.default_minutes)
    except RequestError as error:
        nothing = {"devices": None, "nodes": None, "memory_gb": flavor.memory_gb, "partition": None}
        return {**head, **nothing, "billing_units_per_hour": None}, str(error)
    return {**head, **_placed(site, placement)}, ""


def _placed(site: "Site", placement: "Placement") -> dict[str, Any]:
    from ..billing import bill
    from ..usage import Usage

    node = site.node(placement.partition)
    device = site.device(node)
    cores = len(node.usable_cores) if placement.whole_node else placement.devices_per_node * placement.cores_per_device
    usage = Usage(
        partition=placement.partition.name,
        nodes=placement.nodes,
        devices=placement.devices,
        cores=placement.nodes * cores,
        memory_gib=placement.nodes * placement.memory_gib,
        hours=1.0,
    )
    return {
        "devices": placement.devices,
        "nodes": placement.nodes,
        "memory_gb": placement.devices * device.memory_gb if device else placement.flavor.memory_gb,
        "partition": placement.partition.name,
        "billing_units_per_hour": bill(site, usage).billing_units,
    }


def _show(site: "Site", lines: list[tuple[dict[str, Any], str]], chosen: str | None) -> None:
    units = {site.rule(site.partition(line["partition"])).unit for line, _ in lines if line["partition"]}
    unit = "/".join(sorted(units)) or "units"
    rows = [
        (
            line["number"],
            f"{line['name']}{'  *' if line['name'] == chosen else ''}",
            line["devices"],
            line["nodes"],
            line["memory_gb"],
            line["partition"],
            line["billing_units_per_hour"],
        )
        for line, _ in lines
    ]
    show_table(("", "FLAVOR", "DEVICES", "NODES", "GB", "PARTITION", "PER HOUR"), rows, right=_RIGHT)
    click.echo(f"\nSite {site.name}; GB of device memory; PER HOUR in {unit}.")
    for reason in _reasons(lines):
        click.echo(reason)


def _reasons(lines: list[tuple[dict[str, Any], str]]) -> list[str]:
    """One sentence for the first flavor that the site cannot take: the larger ones fail for the same reason."""
    refused = [(line["name"], reason) for line, reason in lines if reason]
    if not refused:
        return []
    reason, rest = refused[0][1], [name for name, _ in refused[1:]]
    return [f"Not here: {reason}.", *([f"Nor: {', '.join(rest)}."] if rest else [])]
