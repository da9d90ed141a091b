"""Rules on what the site gives: partitions, accounts, times, nodes, cores, memory, devices."""

import re
from collections.abc import Iterator

from ..errors import did_you_mean
from ..sbatch import Directive
from ..units import format_gib, format_minutes
from .case import Case
from .rule import Edit, Hit, Rule

_SITE = "the site file (`source` of the partition)"
_UP = "these are refused when the job is submitted, or it waits for ever"


def _at(case: Case, *names: str) -> Directive | None:
    return next((found for name in names if (found := case.script.directive(name))), None)


def _hit(case: Case, names: tuple[str, ...], message: str, edits: tuple[Edit, ...] = ()) -> Hit:
    found = _at(case, *names)
    place = case.script.place(found) if found else case.top
    return Hit(place=place, message=message, edits=edits, source=case.partition.source if case.partition else None)


def _partition(case: Case) -> Iterator[Hit]:
    found = case.script.directive("partition")
    if found is None:
        if case.script.header.lines:
            yield Hit(
                place=case.top,
                severity="warning",
                message="no partition is named; without one on the command line either, sbatch refuses the job",
            )
    elif case.partition is None and "$" not in found.value and not _told_otherwise(case, found):
        near = did_you_mean(found.value, case.site.partitions)
        yield Hit(place=case.script.place(found),
                  message=f"site {case.site.name} has no partition {found.value!r}{near}; a script for another cluster"
                  " is read with --site")  # fmt: skip


def _told_otherwise(case: Case, found: Directive) -> bool:
    return any(re.search(one.pattern, f"--partition={found.value}") for one in case.site.check.options)


def _account(case: Case) -> Iterator[Hit]:
    policy, found = case.site.policy, case.script.directive("account")
    if not policy.account_required or not case.script.header.lines or case.script.asked.partition is None:
        return
    if found is None:
        yield Hit(
            place=case.top,
            severity="note",
            message=f"no account is named; $SBATCH_ACCOUNT or --account has to ({policy.account_hint})",
        )
    elif (
        policy.account_pattern
        and "$" not in found.value
        and not re.fullmatch(policy.account_pattern, found.value, re.IGNORECASE)
    ):
        yield Hit(place=case.script.place(found), message=f"{found.value!r} is no account: {policy.account_hint}")


def _time(case: Case) -> Iterator[Hit]:
    if case.partition and case.script.directive("time") is None:
        limit = format_minutes(case.partition.max_minutes)
        yield _hit(case, (), f"no time limit is named; {case.partition.name} gives at most {limit}")


def _too_long(case: Case) -> Iterator[Hit]:
    asked = case.script.asked.minutes
    if case.partition and asked is not None and asked > case.partition.max_minutes:
        limit = format_minutes(case.partition.max_minutes)
        yield _hit(case, ("time",), f"{format_minutes(asked)} is over the limit {limit} of partition"
                   f" {case.partition.name}", case.set_directive("time", limit))  # fmt: skip


def _minutes(case: Case) -> Iterator[Hit]:
    found = case.script.directive("time")
    if found and re.fullmatch(r"\d{1,2}:\d\d", found.value):
        first, second = (int(part) for part in found.value.split(":"))
        yield Hit(place=case.script.place(found), message=f"{found.value} is {first} min {second} s to Slurm;"
                  f" {first} h {second} min are {found.value}:00")  # fmt: skip


def _nodes(case: Case) -> Iterator[Hit]:
    if case.partition and case.nodes and case.nodes > case.partition.max_nodes:
        yield _hit(case, ("nodes",), f"{case.nodes} nodes are over the {case.partition.max_nodes} that partition"
                   f" {case.partition.name} gives a job")  # fmt: skip


def _cores(case: Case) -> Iterator[Hit]:
    tasks, cpus = case.tasks_per_node, case.script.asked.cpus_per_task or 1
    if not case.node or not tasks or case.script.directive("overcommit"):
        return
    most = len(case.node.usable_cores)
    threads = case.node.threads_per_core if _asks_threads(case) else 1
    if tasks * cpus > most * threads and (case.nodes == 1 or case.script.asked.tasks_per_node):
        fits = most // tasks
        reserved = f" ({len(case.node.reserved_cores)} are kept for the system)" if case.node.reserved_cores else ""
        names = ("cpus-per-task", "ntasks-per-node", "ntasks")
        of = f"{cpus} core{'s' if cpus > 1 else ''}"
        yield _hit(case, names, f"{tasks} tasks of {of} are {tasks * cpus} on a node of {most}"
                   f"{reserved}", case.set_directive("cpus-per-task", str(fits)) if fits else ())  # fmt: skip


def _asks_threads(case: Case) -> bool:
    hint, threads = case.script.directive("hint"), case.script.directive("threads-per-core")
    return (hint is not None and hint.value == "multithread") or (threads is not None and threads.value == "2")


def _memory(case: Case) -> Iterator[Hit]:
    asked, node = case.script.asked, case.node
    if not node:
        return
    pairs = (
        ("mem", asked.memory_gib, 1),
        ("mem-per-gpu", asked.memory_gib_per_device, case.devices_per_node),
        ("mem-per-cpu", asked.memory_gib_per_cpu, (case.tasks_per_node or 1) * (asked.cpus_per_task or 1)),
    )
    for name, gib, times in pairs:
        if gib and times and gib * times > node.memory_gib:
            fits = node.memory_gib if times == 1 else node.memory_gib // times
            yield _hit(case, (name,), f"{format_gib(gib * times)} on a node is more than the {node.memory_gib}G that a"
                       " job can have", case.set_directive(name, f"{fits}G") if fits else ())  # fmt: skip


def _devices(case: Case) -> Iterator[Hit]:
    if case.node and case.devices_per_node and case.devices_per_node > case.node.devices:
        yield _hit(case, ("gpus-per-node", "gres", "gpus", "gpus-per-task"), f"{case.devices_per_node} devices on a"
                   f" node of {case.node.devices}; ask for more nodes")  # fmt: skip


def _no_devices(case: Case) -> Iterator[Hit]:
    if case.partition and case.node and case.node.devices and not case.asks_devices and case.steps_or_training:
        whole = f" and pays for all {case.node.devices}" if case.partition.allocation == "node" else ""
        yield _hit(case, ("partition",), f"the job asks for no device in partition {case.partition.name}: it sees"
                   f" none{whole}")  # fmt: skip


RULES = (
    Rule(id="LM201", name="partition", severity="error", title="No such partition",
         reason="Each partition has its own nodes, limits and prices; nothing is judged without one.", source=_SITE,
         look=_partition),
    Rule(id="LM202", name="account", severity="error", title="No account, or none of the site's form",
         reason="Every job is paid by a project.", source="the site file (`policy`)", look=_account),
    Rule(id="LM203", name="no-time", severity="warning", title="No time limit",
         reason="Slurm takes the partition's default; short limits start sooner.", source=_SITE, look=_time),
    Rule(id="LM210", name="time-over-limit", severity="error", title="More time than the partition gives",
         reason=f"Requests over a limit: {_UP}.", source=_SITE, look=_too_long),
    Rule(id="LM204", name="minutes-and-seconds", severity="note", title="A time of two numbers",
         reason="Slurm reads two numbers as minutes and seconds.", source="Slurm's sbatch(1)", look=_minutes),
    Rule(id="LM205", name="nodes-over-limit", severity="error", title="More nodes than the partition gives",
         reason=f"Requests over a limit: {_UP}.", source=_SITE, look=_nodes),
    Rule(id="LM206", name="cores-over-node", severity="error", title="More cores than a node gives",
         reason="Some cores of a node may be kept for the system; a request for them never starts.",
         source="LUMI-training-materials User-Updates/Update-202308/lumig-lownoise.md", look=_cores),
    Rule(id="LM207", name="memory-over-node", severity="error", title="More memory than a node gives",
         reason="Part of the installed memory is the system's.", source="LUMI-training-materials 201-Slurm.md",
         look=_memory),
    Rule(id="LM208", name="devices-over-node", severity="error", title="More devices than a node has",
         reason=f"Requests over a limit: {_UP}.", source=_SITE, look=_devices),
    Rule(id="LM209", name="no-devices", severity="warning", title="No device in a partition of devices",
         reason="Slurm hides devices that were not asked for.", source="lumi-userguide lumig-job.md",
         look=_no_devices),
)  # fmt: skip
