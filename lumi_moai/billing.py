"""What a usage costs by the rule of its partition."""

from math import ceil

from .errors import RequestError
from .site import BillingRule, Site
from .usage import Bill, Usage


def bill(site: Site, usage: Usage) -> Bill:
    """The price of *usage* on *site*.

    Whole nodes cost the same whatever is used of them. Where parts are sold, each resource is counted in slices,
    rounded up, and the largest count decides. Cores and memory of the same slice count are named after the devices,
    because the devices are what the user came for.

    Raises RequestError for a partition that the site does not have.
    """
    rule = site.rule(site.partition(usage.partition))
    if rule.per_node is not None:
        units, decided_by = rule.per_node * usage.nodes, "nodes"
        return Bill(billing_units=units * usage.hours, unit=rule.unit, hours=usage.hours, decided_by=decided_by)
    counts = _slices(rule, usage, 1)
    decided_by = max(counts, key=lambda resource: counts[resource])
    upper = max(_slices(rule, usage, usage.nodes).values())
    price = (rule.per_slice or 0.0) * usage.hours
    return Bill(
        billing_units=price * counts[decided_by],
        unit=rule.unit,
        hours=usage.hours,
        decided_by=decided_by,
        upper_bound=price * upper if upper > counts[decided_by] else None,
    )


def _slices(rule: BillingRule, usage: Usage, nodes: int) -> dict[str, int]:
    """Slices by resource, rounded up on each of *nodes* equal shares; the first of equals wins in `max`."""
    if rule.slice is None:
        raise RequestError(f"billing rule with unit {rule.unit} has neither per_node nor slice")
    pairs = [
        ("devices", usage.devices, rule.slice.devices),
        ("cores", usage.cores, rule.slice.cores),
        ("memory", usage.memory_gib, rule.slice.memory_gib),
    ]
    return {name: nodes * ceil(round(used / nodes / per, 6)) for name, used, per in pairs if per is not None}


def cheapest(site: Site, usage: Usage) -> tuple[Usage, Bill] | None:
    """The same devices and nodes for less, or None when *usage* already is the cheapest way.

    Looks at three ways out: cores and memory cut down to what the devices pay for, the devices moved from whole nodes
    that they leave partly idle to a partition that sells parts, and CPU work cut to its cores.
    """
    now = bill(site, usage)
    offers = [(offer, bill(site, offer)) for offer in _offers(site, usage)]
    better = [pair for pair in offers if pair[1].unit == now.unit and pair[1].billing_units < now.billing_units - 1e-9]
    return min(better, key=lambda pair: pair[1].billing_units, default=None)


def _offers(site: Site, usage: Usage) -> list[Usage]:
    offers = []
    if not usage.devices:
        return offers
    for partition in site.partitions.values():
        node = site.node(partition)
        if not node.devices or usage.nodes > partition.max_nodes or usage.hours * 60 > partition.max_minutes:
            continue
        fits = usage.devices <= usage.nodes * node.devices
        if fits and (partition.choose or partition.name == usage.partition):
            offers.append(
                Usage(
                    partition=partition.name,
                    nodes=usage.nodes,
                    devices=usage.devices,
                    cores=min(usage.cores, usage.devices * node.cores_per_device),
                    memory_gib=min(usage.memory_gib, usage.devices * node.memory_gib_per_device),
                    hours=usage.hours,
                )
            )
    return offers
