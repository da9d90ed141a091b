"""Rules on cores: masks against the node's topology, missing bindings, tasks with too few cores."""

import re
from collections.abc import Iterator, Sequence

from ..binding import cpu_masks
from ..site import Node
from ..units import format_cores
from .case import Case, Step, is_torchrun, option_value, replace_text, torchrun_value
from .rule import Edit, Hit, Rule, Severity
from .script import Command
from .value import hole, known, whole_number

_BINDING = "lumi-userguide docs/runjobs/scheduled-jobs/distribution-binding.md"
_NOISE = "LUMI-training-materials User-Updates/Update-202308/lumig-lownoise.md"
_SMALL = frozenset(
    """hostname mkdir echo rm cp mv ls cat date env printenv rocm-smi nvidia-smi sleep tar rsync touch true uname
    taskset numactl lscpu chmod which pip rocminfo scontrol hybrid_check mpi_check""".split()  # noqa: SIM905
)


def _entries(step: Step, node: Node) -> list[tuple[int, ...]] | None:
    """The cores of each mask or map entry of *step*; None without one, or when it is not certain."""
    found = re.search(r"(mask_cpu|map_cpu)[:=](.+)$", step.cpu_bind or "")
    if not found or not known(found[2]):
        return None
    words = found[2].split(",")
    if found[1] == "map_cpu":
        numbers = [int(word, 0) for word in words if re.fullmatch(r"0x[0-9a-fA-F]{1,4}|0|[1-9]\d{0,4}", word)]
        return [(number % len(node.cores),) for number in numbers] if len(numbers) == len(words) else None
    if not all(re.fullmatch(r"(0x)?[0-9a-fA-F]{1,64}", word) for word in words):
        return None
    return [_cores_of(int(word, 16), len(node.cores)) for word in words]


def _cores_of(mask: int, cores: int) -> tuple[int, ...]:
    """The physical cores of a mask; the second threads stand behind the first."""
    return tuple(sorted({bit % cores for bit in range(mask.bit_length()) if mask >> bit & 1}))


def _masked(case: Case) -> Iterator[tuple[Step, Node, list[tuple[int, ...]]]]:
    for step in case.steps:
        if case.node and (entries := _entries(step, case.node)) is not None:
            yield step, case.node, entries


def _mask_hit(step: Step, message: str, edits: tuple[Edit, ...] = ()) -> Hit:
    option = step.options.get("cpu-bind")
    found = step.command.variables.get("SLURM_CPU_BIND")
    place = step.word(option).place if option else found.place if found and found.place else step.command.place
    return Hit(place=place, message=message, edits=edits)


def _reserved(case: Case) -> Iterator[Hit]:
    for step, node, entries in _masked(case):
        if wrong := sorted({core for cores in entries for core in cores} & set(node.reserved_cores)):
            yield _mask_hit(step, f"cores {format_cores(wrong)} are kept for the system, so the step fails",
                            _right_mask(case, step, node))  # fmt: skip
        elif far := sorted({core for cores in entries for core in cores} - set(node.cores)):
            yield _mask_hit(step, f"a node has no cores {format_cores(far)}")


def _right_mask(case: Case, step: Step, node: Node) -> tuple[Edit, ...]:
    """The edit that writes the site's masks, where one task has one device and the option is spelled out."""
    option = step.options.get("cpu-bind")
    if option is None or step.tasks_per_node != node.devices or _remapped(case, step) or option.first != option.last:
        return ()
    masks = ",".join(cpu_masks([slot.cores for slot in node.slots]))
    return replace_text(step.word(option).place, f"--cpu-bind=mask_cpu:{masks}")


def _remapped(case: Case, step: Step) -> bool:
    """Whether tasks may use other devices than their own number says, or that cannot be seen."""
    if "gpu-bind" in step.options or case.script.directive("gpu-bind"):
        return True
    names = case.site.check.visible_devices
    set_here = [a.variable.text for a in case.script.assignments if a.variable.name in names]
    if any(text != hole("SLURM_LOCALID") for text in set_here):
        return True
    return any(step.command in one.within for one in case.script.absent)


def _mapped(step: Step, node: Node) -> tuple[int, ...] | None:
    """The device of each task by `--gpu-bind=map:...`; None where that says nothing about all of them."""
    option = step.options.get("gpu-bind")
    found = re.fullmatch(r"map(?:_gpu)?:([\d,]+)", option.value) if option else None
    order = tuple(int(word) for word in found[1].split(",") if word) if found else ()
    return order if sorted(order) == list(range(node.devices)) else None


def _order(case: Case) -> Iterator[Hit]:
    for step, node, entries in _masked(case):
        tasks = step.tasks_per_node or len(entries)
        order = _mapped(step, node) or (None if _remapped(case, step) else tuple(range(node.devices)))
        asked = case.devices_per_node
        if tasks not in _shapes(node) or len(entries) < tasks or order is None or asked not in (None, node.devices):
            continue
        if {core for cores in entries for core in cores} & set(node.reserved_cores):
            continue
        wrong = [_displaced(node, order, task, tasks, cores) for task, cores in enumerate(entries[:tasks])]
        if _one_device_each(node, order, entries[:tasks]):
            continue
        if said := [one for one in wrong if one]:
            yield _mask_hit(step, f"{'; '.join(said[:3])}{f'; {len(said) - 3} more' if len(said) > 3 else ''}",
                            _right_mask(case, step, node))  # fmt: skip


def _one_device_each(node: Node, order: Sequence[int], entries: Sequence[tuple[int, ...]]) -> bool:
    """Whether fewer tasks than devices are each beside the device of their number, which may be all that they use."""
    if len(entries) >= node.devices:
        return False
    return all(set(cores) <= set(node.slots[order[task]].cores) for task, cores in enumerate(entries))


def _shapes(node: Node) -> set[int]:
    count = node.devices
    return {n for n in range(1, count + 1) if count % n == 0} | {2 * count, 3 * count} if count else set()


def _displaced(node: Node, order: Sequence[int], task: int, tasks: int, cores: Sequence[int]) -> str:
    """What is wrong with the *cores* of local rank *task*; nothing when one of its devices is beside each."""
    first = task * node.devices // tasks
    mine = [order[at] for at in range(first, max(first + 1, (task + 1) * node.devices // tasks))]
    near = {core for device in mine for core in node.slots[device].cores}
    if set(cores) <= near:
        return ""
    devices = f"device{'s' if len(mine) > 1 else ''} {', '.join(map(str, mine))}"
    owner = next((n for n, slot in enumerate(node.slots) if set(cores) & set(slot.cores)), None)
    beside = f", beside device {owner}" if owner is not None else ""
    return f"task {task} with {devices} is bound to cores {format_cores(set(cores))}{beside}, not {format_cores(near)}"


def _on_parts(case: Case) -> Iterator[Hit]:
    for step, node, _ in _masked(case):
        if case.partition and case.partition.allocation == "resource" and not case.owns_nodes:
            sure = (case.devices_per_node or 0) < node.devices
            shared = case.script.directive("exclusive") is None
            severity: Severity | None = None if sure and shared else "note"
            hit = _mask_hit(step, f"masks name cores of a whole node, but {case.partition.name} gives parts of one:"
                            " `CPU binding outside of job step allocation`")  # fmt: skip
            yield Hit(place=hit.place, message=hit.message, severity=severity)


def _unbound(case: Case) -> Iterator[Hit]:
    node = case.node
    if not node or not node.bind or not node.slots or not case.owns_nodes or (case.devices_per_node or 0) < 2:
        return
    for step in case.steps:
        tasks = step.tasks_per_node
        if not tasks or tasks < 2 or tasks > node.devices or step.cpu_bind is not None or not _works(step):
            continue
        if any(name in step.options for name in ("distribution", "multi-prog", "hint")):
            continue
        hidden = case.hidden(step.command) and any(
            one.sourced or step.command in one.within for one in case.script.absent
        )
        chosen = _devices_follow(case, step)
        yield Hit(place=step.command.words[0].place, severity="note" if hidden or chosen else None,
                  edits=() if hidden or chosen else _binding(case, step, node),
                  message=f"{tasks} tasks a node and no --cpu-bind: the first task gets the first cores, which are"
                  f" beside another device{' (unless a script that is not here binds)' if hidden else ''}")  # fmt: skip


def _devices_follow(case: Case, step: Step) -> bool:
    """Whether `--gpu-bind` gives each task devices of Slurm's choice, which may be those beside its cores."""
    found = step.options.get("gpu-bind") or case.script.directive("gpu-bind")
    return found is not None and found.value != "none" and not found.value.startswith("map")


def _works(step: Step) -> bool:
    last = step.starts[-1] if step.starts else None
    if any(word.text == "lumi_moai.runtime" for command in step.starts for word in command.words):
        return False  # its ranks bind themselves
    return last is not None and not any(command.name in _SMALL for command in step.starts)


def _binding(case: Case, step: Step, node: Node) -> tuple[Edit, ...]:
    place = step.command.words[0].place
    if step.tasks_per_node != node.devices or _remapped(case, step) or step.command.words[0].raw != "srun":
        return ()
    if place.end is None or place.path != case.script.path or case.devices_per_node != node.devices:
        return ()
    masks = ",".join(cpu_masks([slot.cores for slot in node.slots]))
    return (Edit(start=place.end, end=place.end, text=f" --cpu-bind=mask_cpu:{masks}"),)


def _few(case: Case) -> Iterator[Hit]:
    node, devices, cpus = case.node, case.devices_per_node, case.script.asked.cpus_per_task
    found, tasks = case.script.directive("cpus-per-task"), case.tasks_per_node
    if (
        not node
        or not devices
        or not tasks
        or not cpus
        or not found
        or not case.steps_or_training
        or devices > node.devices
    ):
        return
    fair = node.cores_per_device * devices
    if any(_entries(step, node) for step in case.steps) or any("cpus-per-task" in s.options for s in case.steps):
        return
    if tasks * cpus < fair and fair // tasks > cpus:
        few = 2 * tasks * cpus < fair
        yield Hit(place=case.script.place(found), severity=None if few else "note",
                  edits=case.set_directive("cpus-per-task", str(fair // tasks)),
                  message=f"{tasks * cpus} cores for {devices} device{'s' if devices > 1 else ''} of a node;"
                  f" {fair} come with them for the same price")  # fmt: skip


def _none(case: Case) -> Iterator[Hit]:
    node, devices = case.node, case.devices_per_node
    named = case.script.directive("cpus-per-task") or case.script.directive("cpus-per-gpu")
    if not node or not devices or named or devices > node.devices or not case.script.header.lines:
        return
    whole = case.partition is not None and case.partition.allocation == "node"
    steps = [s for s in case.steps if "cpus-per-task" not in s.options and not _entries(s, node) and _works(s)]
    alone = None if whole or case.steps else next(case.training(), None)
    for step in steps:
        hidden = step.cpu_bind is not None or (case.hidden(step.command) and case.script.absent)
        if not step.tasks_per_node or "exclusive" in step.options or hidden or case.script.directive("ntasks-per-core"):
            continue
        yield _one_core(case, step.command.words[0].place, step.tasks_per_node, node, devices)
        return
    if alone is not None:
        yield _one_core(case, alone.words[0].place, case.tasks_per_node or 1, node, devices)


def _one_core(case: Case, place: object, tasks: int, node: Node, devices: int) -> Hit:
    fair = node.cores_per_device * devices // tasks
    edits = case.add_directive(f"--cpus-per-task={fair}") if fair and case.tasks_per_node == tasks else ()
    return Hit(place=place, edits=edits,  # type: ignore[arg-type]
               message=f"no --cpus-per-task: each task runs on one core, {fair} come with its devices")  # fmt: skip


def _srun_cpus(case: Case) -> Iterator[Hit]:
    cpus = case.script.asked.cpus_per_task
    if case.site.check.srun_takes_cpus or not cpus or cpus < 2 or case.site.scheduler != "slurm":
        return
    for step in case.steps:
        if "cpus-per-task" in step.options or step.command.value("SRUN_CPUS_PER_TASK") or not _works(step):
            continue
        place = step.command.words[0].place
        inside = place.end is not None and place.path == case.script.path and step.command.words[0].raw == "srun"
        edits = (Edit(start=place.end, end=place.end, text=f" --cpus-per-task={cpus}"),) if inside and place.end else ()
        masked = step.cpu_bind is not None
        yield Hit(place=place, edits=edits, severity="note" if masked else None,
                  message=f"srun does not take --cpus-per-task={cpus} over from sbatch since Slurm 22.05")  # fmt: skip


def _ranks(command: Command) -> int | None:
    """How many ranks the command starts in its task; None where that is not certain."""
    if is_torchrun(command):
        word = torchrun_value(command, "nproc-per-node")
        return whole_number(option_value(word)) if word else 1
    plain = command.name in ("python", "python3") and "-m" not in [word.text for word in command.words]
    return 1 if plain else None


def _workers(case: Case) -> Iterator[Hit]:
    for command in case.training():
        step = next((s for s in case.steps if command.step is s.command), None)
        cpus = step.cpus_per_task if step else case.script.asked.cpus_per_task
        word = torchrun_value(command, "num-workers", "workers", "dataloader-num-workers")
        count = int(option_value(word)) if word and option_value(word).isdigit() else None
        ranks = _ranks(command)
        if word is None or count is None or ranks is None:
            continue
        if count == 0:
            yield Hit(place=word.place, severity="note", message="0 loader workers: the device waits for the data")
        elif ranks > 1 and cpus and count * ranks > cpus:
            yield Hit(place=word.place, message=f"{ranks} ranks of {count} loader workers on {cpus} cores")
        elif cpus and count > cpus:
            yield Hit(place=word.place, message=f"{count} loader workers a task on {cpus} cores")


RULES = (
    Rule(id="LM501", name="reserved-cores", severity="error", title="A mask with cores that jobs do not get",
         reason="A mask that touches a core kept for the system makes the step fail.", source=_NOISE, look=_reserved),
    Rule(id="LM502", name="mask-order", severity="warning", title="Masks in another order than the devices",
         reason="Device numbers do not follow core numbers; a rank far from its device pays on every copy.",
         source=_BINDING, look=_order),
    Rule(id="LM503", name="mask-on-part", severity="error", title="Masks on a part of a node",
         reason="Which cores arrive there is not known beforehand.", source=_NOISE, look=_on_parts),
    Rule(id="LM504", name="no-binding", severity="warning", title="Several tasks a node and no binding",
         reason="10 to 30 % were reported lost by jobs whose hosts work hard.", source=_BINDING, look=_unbound),
    Rule(id="LM505", name="few-cores", severity="warning", title="Fewer cores than come with the devices",
         reason="Loader workers and the collectives' threads share them.", source="LUMI-AI-Guide 05-multi-gpu-and-node",
         look=_few),
    Rule(id="LM506", name="one-core", severity="warning", title="No --cpus-per-task",
         reason="Slurm gives a task one core, on which all loader workers run.",
         source="LUMI-AI-Guide 05-multi-gpu-and-node", look=_none),
    Rule(id="LM507", name="srun-cpus", severity="warning", title="srun without --cpus-per-task",
         reason="Since Slurm 22.05 a step does not inherit it; each task gets one core.",
         source="Slurm 22.05 release notes; snakemake-executor-plugin-slurm 41", look=_srun_cpus),
    Rule(id="LM508", name="loader-workers", severity="warning", title="Loader workers against cores",
         reason="More workers than cores slow each other down; none leaves the device waiting.",
         source="LUMI-AI-Guide 05-multi-gpu-and-node", look=_workers),
)  # fmt: skip
