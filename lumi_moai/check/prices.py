"""Rules on what costs more than it gives, with the price now and that of the cheaper request."""

from collections.abc import Iterator
from dataclasses import replace

from .. import billing
from ..errors import RequestError
from ..sbatch import usage
from ..units import format_gib
from ..usage import Usage
from .case import Case, replace_text
from .rule import Cost, Hit, Rule

_BILLING = "lumi-userguide docs/runjobs/lumi_env/billing.md"


def _blocked(case: Case) -> Usage | None:
    """What the job blocks, None when that is not certain."""
    if case.partition is None or case.nodes is None or not case.devices_per_node:
        return None
    try:
        return usage(case.site, case.script.asked)[0]
    except RequestError:
        return None


def _cost(case: Case, now: Usage, cheaper: Usage | None, advice: str) -> Cost | None:
    if cheaper is None:
        return None
    before, after = billing.bill(case.site, now), billing.bill(case.site, cheaper)
    times = case.script.asked.array_tasks
    if after.unit != before.unit or after.billing_units >= before.billing_units:
        return None
    return Cost(now=before.billing_units * times, cheaper=after.billing_units * times, unit=before.unit, advice=advice)


def _fair(case: Case) -> tuple[Usage, Usage] | None:
    """What a job on parts of nodes blocks, and the same with the share of its devices; None where that is not sure."""
    blocked, node = _blocked(case), case.node
    if not blocked or not node or not case.partition or case.partition.allocation != "resource" or case.exclusive:
        return None
    cores, memory = blocked.devices * node.cores_per_device, float(blocked.devices * node.memory_gib_per_device)
    return blocked, replace(blocked, cores=min(cores, blocked.cores), memory_gib=min(memory, blocked.memory_gib))


def _share(usage: Usage) -> str:
    return f"{usage.devices} device{'s' if usage.devices > 1 else ''}"


def _cores(case: Case) -> Iterator[Hit]:
    found = case.script.directive("cpus-per-task") or case.script.directive("ntasks-per-node")
    pair = _fair(case)
    if pair is None or found is None or case.node is None:
        return
    blocked, fair = pair
    alone = _cost(case, replace(fair, cores=blocked.cores), fair, "")
    if alone:
        yield Hit(place=case.script.place(found), cost=_cost(case, blocked, fair, _advice(fair)),
                  message=f"{blocked.cores} cores cost more than the {_share(blocked)}: the share of a device is"
                  f" {case.node.cores_per_device}")  # fmt: skip


def _advice(fair: Usage) -> str:
    return f"{fair.cores} cores and {format_gib(fair.memory_gib)} in all"


def _memory(case: Case) -> Iterator[Hit]:
    found = next((d for name in ("mem", "mem-per-cpu", "mem-per-gpu") if (d := case.script.directive(name))), None)
    pair = _fair(case)
    if pair is None or found is None or case.node is None:
        return
    blocked, fair = pair
    alone = _cost(case, replace(fair, memory_gib=blocked.memory_gib), fair, "")
    if alone:
        yield Hit(place=case.script.place(found), cost=_cost(case, blocked, fair, _advice(fair)),
                  message=f"{format_gib(blocked.memory_gib)} of memory cost more than the {_share(blocked)}: the share"
                  f" of a device is {case.node.memory_gib_per_device}G")  # fmt: skip


def _idle(case: Case) -> Iterator[Hit]:
    blocked, node = _blocked(case), case.node
    if not blocked or not node or not case.partition or case.partition.allocation != "node":
        return
    if not case.devices_per_node or case.devices_per_node >= node.devices:
        return
    better = billing.cheapest(case.site, blocked)
    advice = f"partition {better[0].partition}" if better else ""
    cost = _cost(case, blocked, better[0] if better else None, advice)
    idle = node.devices - case.devices_per_node
    place = next(d for name in ("gpus-per-node", "gres", "gpus", "gpus-per-task", "partition")
                 if (d := case.script.directive(name)))  # fmt: skip
    yield Hit(place=case.script.place(place), cost=cost,
              message=f"partition {case.partition.name} sells whole nodes: {idle} of {node.devices} devices are paid"
              " for and stay idle")  # fmt: skip


def _exclusive(case: Case) -> Iterator[Hit]:
    blocked, node, found = _blocked(case), case.node, case.script.directive("exclusive")
    if not blocked or not node or not found or not case.exclusive or not case.partition:
        return
    asked = case.devices_per_node or 0
    if case.partition.allocation == "resource" and asked < node.devices:
        fair = replace(blocked, devices=asked * blocked.nodes, cores=asked * blocked.nodes * node.cores_per_device,
                       memory_gib=float(asked * blocked.nodes * node.memory_gib_per_device))  # fmt: skip
        yield Hit(place=case.script.place(found), cost=_cost(case, blocked, fair, "no --exclusive"),
                  message=f"--exclusive pays for the whole node, {asked} of {node.devices} devices run")  # fmt: skip


def _whole_in_parts(case: Case) -> Iterator[Hit]:
    node, partition = case.node, case.partition
    if not node or not partition or partition.allocation != "resource" or not partition.choose:
        return
    others = [p.name for p in case.site.partitions.values() if p.node == partition.node and p.allocation == "node"]
    found = case.script.directive("partition")
    asked = case.script.asked.minutes or 0
    fits = [name for name in others if asked <= case.site.partitions[name].max_minutes]
    if node.devices and case.devices_per_node == node.devices and fits and found:
        yield Hit(place=case.script.place(found),
                  message=f"all {node.devices} devices of a node cost the same in {fits[0]}, which sells whole nodes;"
                  f" {partition.name} has to wait until one is empty")  # fmt: skip


def _all_memory(case: Case) -> Iterator[Hit]:
    found = case.script.directive("mem")
    # Nodes without devices may come in several sizes, and a number would rule the smaller ones out.
    whole = case.node is not None and case.node.devices and case.owns_nodes
    whole = whole and case.node is not None and case.devices_per_node in (None, case.node.devices)
    if found and case.script.asked.memory_gib == 0 and case.node and whole:
        yield Hit(place=case.script.place(found),
                  message=f"--mem=0 also takes nodes that have lost memory; --mem={case.node.memory_gib}G does not",
                  edits=replace_text(case.script.place(found, value=True), f"{case.node.memory_gib}G"))  # fmt: skip


def _no_memory(case: Case) -> Iterator[Hit]:
    node, partition, devices = case.node, case.partition, case.devices_per_node
    named = any(case.script.directive(name) for name in ("mem", "mem-per-cpu", "mem-per-gpu"))
    if not node or not partition or partition.default_memory_gib is None or not devices or named:
        return
    fair = devices * node.memory_gib_per_device
    if fair > partition.default_memory_gib:
        yield Hit(place=case.top, edits=case.add_directive(f"--mem-per-gpu={node.memory_gib_per_device}G"),
                  message=f"no memory is asked for: the job gets {format_gib(partition.default_memory_gib)} a node,"
                  f" {fair}G come with its {devices} devices")  # fmt: skip


RULES = (
    Rule(id="LM301", name="cores-cost-more", severity="warning", title="Cores that cost more than the devices",
         reason="Parts of a node are billed by the resource that takes most of it.", source=_BILLING, look=_cores),
    Rule(id="LM302", name="memory-costs-more", severity="warning", title="Memory that costs more than the devices",
         reason="Parts of a node are billed by the resource that takes most of it.", source=_BILLING, look=_memory),
    Rule(id="LM303", name="idle-devices", severity="warning", title="Devices that are paid for and not asked for",
         reason="Whole nodes cost the same whatever is used of them.", source=_BILLING, look=_idle),
    Rule(id="LM304", name="exclusive-part", severity="warning", title="A whole node for a part of its devices",
         reason="--exclusive blocks the node for everybody else, and is billed so.", source="lumi-userguide PR 125",
         look=_exclusive),
    Rule(id="LM305", name="whole-node-in-parts", severity="note", title="A whole node from a partition of parts",
         reason="Nodes there are rarely empty, so jobs of whole nodes wait longer.",
         source="LUMI-training-materials 201-Slurm.md", look=_whole_in_parts),
    Rule(id="LM306", name="memory-zero", severity="note", title="All memory instead of a number",
         reason="A number keeps nodes away whose memory has leaked.", source="LUMI-training-materials 201-Slurm.md",
         look=_all_memory),
    Rule(id="LM307", name="default-memory", severity="warning", title="The default memory for several devices",
         reason="The default of a partition of parts does not grow with the devices, so the job may run out.",
         source="LUMI-training-materials 201-Slurm.md", look=_no_memory),
)  # fmt: skip
