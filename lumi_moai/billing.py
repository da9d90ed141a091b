"""What a usage costs by the rule of its partition, and how the same work would cost less."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil

from .errors import RequestError, did_you_mean
from .flavor import Placement
from .site import BillingRule, Partition, Site
from .usage import Bill, Usage


def bill(site: Site, usage: Usage) -> Bill:
    """The price of *usage* on *site*, in the unit of the partition's rule.

    Whole nodes cost the same whatever is used of them. Where parts are sold, each resource is counted in slices,
    rounded up, and the largest count decides. Cores and memory of the same slice count are named after the devices,
    because the devices are what the user came for.

    Raises RequestError for a partition that the site does not have.
    """
    rule = site.rule(site.partition(usage.partition))
    if rule.per_node is not None:
        units = rule.per_node * usage.nodes * usage.hours
        return Bill(billing_units=units, unit=rule.unit, hours=usage.hours, decided_by="nodes")
    counts = _slices(rule, usage.devices, usage.cores, usage.memory_gib)
    decided_by = max(counts, key=lambda resource: counts[resource])
    upper = _slices_by_node(rule, usage)
    price = (rule.per_slice or 0.0) * usage.hours
    return Bill(
        billing_units=price * counts[decided_by],
        unit=rule.unit,
        hours=usage.hours,
        decided_by=decided_by,
        upper_bound=price * upper if upper > counts[decided_by] else None,
    )


def bill_storage(site: Site, place: str, *, terabytes: float, hours: float) -> Bill:
    """The price of *terabytes* (10^12 bytes) kept in *place* for *hours*.

    Raises RequestError for a place that the site does not bill, with the names that it does.
    """
    if place not in site.storage:
        known = ", ".join(site.storage) or "none"
        raise RequestError(
            f"site {site.name} bills no storage {place!r}{did_you_mean(place, site.storage)} (it bills: {known})"
        )
    rule = site.storage[place]
    units = rule.per_tb * terabytes * hours
    return Bill(billing_units=units, unit=rule.unit, hours=hours, decided_by="storage")


def usage_of(site: Site, placement: Placement, *, minutes: int) -> Usage:
    """What a flavor blocks where it was placed, for the whole of its time limit of *minutes*."""
    node = site.node(placement.partition)
    shared = placement.devices_per_node * placement.cores_per_device
    return Usage(
        partition=placement.partition.name,
        nodes=placement.nodes,
        devices=placement.devices,
        cores=placement.nodes * (len(node.usable_cores) if placement.whole_node else shared),
        memory_gib=float(placement.nodes * placement.memory_gib),
        hours=minutes / 60,
    )


def _slices(rule: BillingRule, devices: int, cores: int, memory_gib: float) -> dict[str, int]:
    """Slices by resource; the first of equals wins in `max`."""
    if rule.slice is None:
        raise RequestError(f"billing rule with unit {rule.unit} has neither per_node nor slice")
    pairs = [
        ("devices", devices, rule.slice.devices),
        ("cores", cores, rule.slice.cores),
        ("memory", memory_gib, rule.slice.memory_gib),
    ]
    # Rounded to a millionth first: 480.0000000001 GiB, a sum of floats, is no ninth slice.
    return {name: ceil(round(used / per, 6)) for name, used, per in pairs if per is not None}


def _slices_by_node(rule: BillingRule, usage: Usage) -> int:
    """Slices if the site rounds up on each node, everything spread over the nodes as evenly as whole numbers go."""
    nodes = max(usage.nodes, 1)
    memory = usage.memory_gib / nodes
    shares = zip(_shares(usage.devices, nodes), _shares(usage.cores, nodes), strict=True)
    return sum(max(_slices(rule, devices, cores, memory).values()) for devices, cores in shares)


def _shares(count: int, nodes: int) -> list[int]:
    return [count // nodes + (node < count % nodes) for node in range(nodes)]


def cheapest(site: Site, usage: Usage) -> tuple[Usage, Bill] | None:
    """The same devices (or, without devices, the same cores) for less, or None where nothing costs less.

    Looks at three ways out: cores and memory cut down to what the devices pay for, the work moved from whole nodes
    that it leaves partly idle to where parts are sold, and the devices packed on fewer nodes.
    """
    now = bill(site, usage)
    offers = [(offer, bill(site, offer)) for offer in _offers(site, usage)]
    better = [pair for pair in offers if pair[1].unit == now.unit and pair[1].billing_units < now.billing_units - 1e-9]
    # Of equal prices the one that changes least: the same partition, then the same nodes.
    return min(
        better,
        key=lambda pair: (
            round(pair[1].billing_units, 9),
            pair[0].partition != usage.partition,
            abs(pair[0].nodes - usage.nodes),
        ),
        default=None,
    )


def _offers(site: Site, usage: Usage) -> Iterator[Usage]:
    for partition in site.partitions.values():
        node = site.node(partition)
        if not _takes(site, partition, usage):
            continue
        per_node, wanted = (node.devices, usage.devices) if usage.devices else (len(node.usable_cores), usage.cores)
        fewest = max(1, ceil(wanted / per_node))
        for nodes in {usage.nodes, fewest}:
            if fewest <= nodes <= partition.max_nodes:
                yield replace(_trimmed(site, partition, usage), partition=partition.name, nodes=nodes)


def _takes(site: Site, partition: Partition, usage: Usage) -> bool:
    """Whether the work of *usage* may be offered *partition*: devices where there are some, CPU work elsewhere."""
    open_to_all = partition.choose or partition.name == usage.partition
    suits = bool(site.node(partition).devices) == bool(usage.devices)
    return open_to_all and suits and usage.hours * 60 <= partition.max_minutes


def _trimmed(site: Site, partition: Partition, usage: Usage) -> Usage:
    """*usage* with no more cores and memory than its devices pay for; CPU work keeps its cores."""
    node, rule = site.node(partition), site.rule(partition)
    if usage.devices:
        cores = min(usage.cores, usage.devices * node.cores_per_device)
        return replace(
            usage, cores=cores, memory_gib=min(usage.memory_gib, float(usage.devices * node.memory_gib_per_device))
        )
    if rule.slice is None or not rule.slice.cores or not rule.slice.memory_gib:
        return usage
    paid = usage.cores / rule.slice.cores * rule.slice.memory_gib
    return replace(usage, memory_gib=min(usage.memory_gib, paid))
