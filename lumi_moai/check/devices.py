"""Rules on how devices are asked for and which of them a task sees."""

from collections.abc import Iterator

from .case import Case, is_torchrun, option_value, torchrun_value
from .rule import Hit, Rule

_PER_TASK = ("gpus-per-task", "ntasks-per-gpu", "cpus-per-gpu")
_SHARED = ("allow-task-sharing", "none")


def _per_task(case: Case) -> Iterator[Hit]:
    if case.tasks_per_node == 1 and case.script.directive("ntasks-per-gpu") is None:
        return
    for name in _PER_TASK:
        found = case.script.directive(name)
        if found is None or (name == "cpus-per-gpu" and case.tasks_per_node is None) or _open_to_all(case):
            continue
        yield Hit(place=case.script.place(found),
                  severity=None if case.tasks_per_node else "note",
                  message=f"--{name} shuts each task in with its own devices, which then cannot copy to each other;"
                  " ask with --gpus-per-node, and let each task choose its own")  # fmt: skip
    for step in case.steps:
        for name in _PER_TASK:
            if name in step.options and step.tasks_per_node != 1 and not _open_to_all(case):
                yield Hit(place=step.word(step.options[name]).place, severity=None if step.tasks_per_node else "note",
                          message=f"--{name} shuts each task in with its own devices, which then cannot copy to each"
                          " other; add --gpu-bind=none or --gres-flags=allow-task-sharing")  # fmt: skip


def _open_to_all(case: Case) -> bool:
    given = [d.value for d in case.script.header.directives if d.name in ("gpu-bind", "gres-flags")]
    given += [
        step.options[name].value for step in case.steps for name in ("gpu-bind", "gres-flags") if name in step.options
    ]
    return any(value in _SHARED for value in given)


def _in_all(case: Case) -> Iterator[Hit]:
    found, nodes, devices = case.script.directive("gpus"), case.nodes, case.script.asked.devices
    if found is None or not nodes or nodes < 2 or case.script.directive("gpus-per-node"):
        return
    if case.node and devices == nodes * case.node.devices:
        return  # all devices of all nodes
    even = devices and devices % nodes == 0
    yield Hit(place=case.script.place(found),
              edits=case.rename_directive("gpus", f"--gpus-per-node={devices // nodes}") if even and devices else (),
              message=f"--gpus={found.value} may spread unevenly over {nodes} nodes (7 and 1 were seen);"
              " ask with --gpus-per-node")  # fmt: skip


def _typed(case: Case) -> Iterator[Hit]:
    found = case.script.directive("gpus-per-node")
    if found is None or ":" not in found.value:
        return
    for command in case.training():
        word = torchrun_value(command, "nproc-per-node") if is_torchrun(command) else None
        if word is not None and option_value(word) == found.value:
            yield Hit(place=word.place, message=f"SLURM_GPUS_PER_NODE is {found.value!r} here, which is no number;"
                      " use SLURM_GPUS_ON_NODE")  # fmt: skip
    for one in case.script.assignments:
        if one.variable.text == found.value and one.variable.name.endswith(("_SIZE", "NPROC", "NPROC_PER_NODE")):
            yield Hit(place=one.place, message=f"SLURM_GPUS_PER_NODE is {found.value!r} here, which is no number;"
                      " use SLURM_GPUS_ON_NODE")  # fmt: skip


def _all_of_them(case: Case, text: str) -> bool:
    """Whether *text* leaves all devices of the node, in their order."""
    return case.node is not None and text == ",".join(str(n) for n in range(case.node.devices))


def _two_layers(case: Case) -> Iterator[Hit]:
    names = case.site.check.visible_devices
    said = set()
    for command in case.training() if names else ():
        given = [name for name in names if (text := command.value(name)) is not None and text != ""]
        if given[:1] != list(names[:1]) or _all_of_them(case, command.value(names[0]) or ""):
            continue
        places = [command.variables[name].place for name in given]
        place = next((place for place in reversed(places) if place), None)
        if len(given) > 1 and place and place not in said:
            said.add(place)
            yield Hit(place=place, message=f"{' and '.join(given)} are both set: the second counts within what"
                      " the first leaves, which ends in `invalid device ordinal`; keep one")  # fmt: skip


RULES = (
    Rule(id="LM401", name="devices-per-task", severity="warning", title="Devices by task",
         reason="Each task lands in a control group of its own and loses peer access, so RCCL and MPI break or slow.",
         source="lumi-userguide PR 277; quokka PR 2179", look=_per_task),
    Rule(id="LM402", name="devices-in-all", severity="warning", title="A total of devices over several nodes",
         reason="Slurm spreads a total as it likes.", source="LUMI-training-materials 201-Slurm.md", look=_in_all),
    Rule(id="LM403", name="typed-count", severity="error", title="A typed count used as a number",
         reason="With a type in the request, Slurm's variable holds the type too.", source="Slurm's sbatch(1)",
         look=_typed),
    Rule(id="LM404", name="two-visibility-layers", severity="warning", title="Two variables that narrow the devices",
         reason="The inner one numbers what the outer one has left.", source="ROCm documentation, GPU isolation",
         look=_two_layers),
)  # fmt: skip
