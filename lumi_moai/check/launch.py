"""Rules on starting the ranks: srun, the world's size, where the ranks meet, what is expanded where."""

import re
from collections.abc import Iterator

from .case import Case, Step, is_torchrun, option_value, replace_text, starts_ranks, torchrun_value
from .launched import launched
from .rule import Edit, Hit, Rule, Severity
from .script import Command, Word
from .value import holes, known, shown, whole_number

_MULTI = "LUMI-AI-Guide 05-multi-gpu-and-node"
_PER_TASK = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID")
_RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "OMPI_COMM_WORLD_RANK")
_LOCAL = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104  # names to look for
_FIRST_NODE = '$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
_OWN_DEVICES = {"gpus", "gpus-per-node", "gpus-per-task", "gres", "gpu-bind"}
_PORT = "$((10000 + SLURM_JOB_ID % 10000))"


def _no_srun(case: Case) -> Iterator[Hit]:
    many = (case.nodes or 1) > 1
    if case.steps or case.script.absent or case.launches_elsewhere or not (many or (case.tasks or 1) > 1):
        return
    for command in case.training():
        if not many and starts_ranks(command):
            continue
        lost = f"the other {(case.nodes or 2) - 1} nodes" if many else f"the other {(case.tasks or 2) - 1} tasks"
        yield Hit(place=command.words[0].place,
                  message=f"this runs on the first node only, without srun: {lost} are paid for and idle")  # fmt: skip
        return


def _world(case: Case) -> Iterator[Hit]:
    for step in case.steps:
        for command in case.trained(step):
            if is_torchrun(command):
                yield from _torchrun(case, step, command)
            elif not starts_ranks(command):
                yield from _world_size(case, step, command)


def _torchrun(case: Case, step: Step, command: Command) -> Iterator[Hit]:
    devices = case.devices_per_node
    nodes, procs = _number(torchrun_value(command, "nnodes")), _procs(case, step, command)
    if _names_no_nodes(command) and step.nodes and step.nodes > 1:
        yield Hit(place=command.words[0].place, severity="warning", message="torchrun without --nnodes makes a"
                  f" training of its own on each of the {step.nodes} nodes")  # fmt: skip
    alone = next((word for word in command.words if word.text == "--standalone"), None)
    if alone and step.nodes and step.nodes > 1:
        yield Hit(place=alone.place, severity="warning",
                  message=f"--standalone makes a training of its own on each of the {step.nodes} nodes")  # fmt: skip
    elif nodes and step.nodes and nodes[0] != step.nodes:
        yield Hit(place=nodes[1].place, message=f"--nnodes={nodes[0]}, but srun starts it on {step.nodes}"
                  f" node{'s' if step.nodes > 1 else ''}: it waits for ever")  # fmt: skip
    if not procs or not devices or not step.tasks_per_node:
        return
    ranks = procs[0] * step.tasks_per_node
    if ranks > devices:
        twice = f"{step.tasks_per_node} tasks x " if step.tasks_per_node > 1 else ""
        yield Hit(
            place=procs[1].place, message=f"{twice}{procs[0]} processes a node are {ranks} ranks on {devices} devices"
        )
    elif ranks < devices and len(case.steps) == 1 and not _OWN_DEVICES & set(step.options):
        yield Hit(place=procs[1].place, severity="warning",
                  message=f"{ranks} ranks a node on {devices} devices: {devices - ranks} stay idle")  # fmt: skip


def _names_no_nodes(command: Command) -> bool:
    """Whether torchrun is certainly left with its default of one node."""
    if torchrun_value(command, "nnodes", "standalone") or command.value("PET_NNODES") is not None:
        return False
    return launched(command) is not None and all(word.known for word in command.words)


def _procs(case: Case, step: Step, command: Command) -> tuple[int, Word] | None:
    """How many processes torchrun starts on a node, and the word that says so."""
    word = torchrun_value(command, "nproc-per-node")
    narrowed = any(command.value(name) is not None for name in case.site.check.visible_devices)
    bound = _OWN_DEVICES & {*step.options, *(d.name for d in case.script.header.directives if "task" in d.name)}
    if word and option_value(word) in ("gpu", "auto") and case.devices_per_node and not narrowed and not bound:
        return case.devices_per_node, word
    return _number(word)


def _over_job(case: Case) -> Iterator[Hit]:
    for step in case.steps:
        option = step.options.get("nodes")
        nodes = whole_number(option.value) if option else None
        if option and nodes and case.nodes and case.script.header.hetjob is None and nodes > case.nodes:
            yield Hit(place=step.word(option).place,
                      message=f"srun asks for {nodes} nodes of a job that has {case.nodes}: it is refused")  # fmt: skip


def _number(word: Word | None) -> tuple[int, Word] | None:
    text = re.sub(r"^(\d+):\1$", r"\1", option_value(word)) if word else ""  # torchrun's least and most nodes
    number = whole_number(text)
    return (number, word) if number is not None and word else None


def _world_size(case: Case, step: Step, command: Command) -> Iterator[Hit]:
    found = command.variables.get("WORLD_SIZE")
    size = whole_number(found.text) if found and found.exported else None
    if size and found and found.place and step.tasks and size != step.tasks:
        if step.tasks_per_node == 1 and size == step.tasks * (case.devices_per_node or 0):
            yield Hit(place=found.place, severity="note",
                      message=f"WORLD_SIZE is {size}, and srun starts one task a node: right only if the program starts"
                      " the others itself")  # fmt: skip
            return
        yield Hit(place=found.place,
                  message=f"WORLD_SIZE is {size}, but srun starts {step.tasks} tasks: they wait for each other for ever"
                  if size > step.tasks else f"WORLD_SIZE is {size}, but srun starts {step.tasks} tasks")  # fmt: skip


def _port(case: Case) -> Iterator[Hit]:
    shared = case.partition is not None and case.partition.allocation == "resource" and not case.owns_nodes
    severity: Severity | None = None if shared else "note"
    said = set()
    for one in case.script.assignments:
        if one.variable.name == "MASTER_PORT" and one.variable.text.isdigit():
            said.add(one.variable.text)
            plain = one.place.start is not None and one.place.path == case.script.path and not one.in_task
            # A default may be overridden, and a number that stands elsewhere too has to stay the same there.
            plain = plain and "$" not in one.variable.raw and case.script.file_text.count(one.variable.text) == 1
            edit = replace_text(one.place, f"MASTER_PORT={_PORT}") if plain else ()
            yield Hit(place=one.place, severity=severity, edits=edit, message=_port_words(one.variable.text))
    for command in case.training():
        word = torchrun_value(command, "master-port", "main-process-port", "rdzv-endpoint")
        port = re.fullmatch(r"(?:.*:)?(\d{4,5})", option_value(word), re.DOTALL) if word else None
        if word and port and port[1] not in said:
            yield Hit(place=word.place, severity=severity, message=_port_words(port[1]))


def _port_words(port: str) -> str:
    return f"port {port} is the same in every job: two on a node meet with `address already in use`"


def _address(case: Case) -> Iterator[Hit]:
    for step in case.steps:
        if not step.nodes or step.nodes < 2:
            continue
        for command in case.trained(step):
            found = command.variables.get("MASTER_ADDR")
            if found and found.place and _nowhere(case, found.raw, found.text, found.place.start):
                yield Hit(place=found.place, edits=_scontrol(case, found.place, found.name),
                          message=f"MASTER_ADDR={shown(found.raw)} is another machine on each of the {step.nodes}"
                          " nodes: the ranks never meet")  # fmt: skip
                return
            word = torchrun_value(command, "rdzv-endpoint", "master-addr")
            if word and option_value(word).split(":")[0] in _LOCAL:
                yield Hit(place=word.place, message=f"{option_value(word)} is another machine on each of the"
                          f" {step.nodes} nodes: the ranks never meet")  # fmt: skip


def _nowhere(case: Case, raw: str, text: str, start: int | None) -> bool:
    in_task = any(
        a.in_task and a.place.start == start and a.variable.name == "MASTER_ADDR" for a in case.script.assignments
    )
    return text in _LOCAL or (in_task and re.search(r"\bhostname\b(?!s)", raw) is not None)


def _scontrol(case: Case, place: object, name: str) -> tuple[Edit, ...]:
    found = next((a for a in case.script.assignments if a.place == place), None)
    if found is None or found.within or found.place.path != case.script.path or "${" in found.variable.raw:
        return ()
    return replace_text(found.place, f"{name}={_FIRST_NODE}")


def _on_host(case: Case) -> Iterator[Hit]:
    said = set()
    for step in case.steps:
        if not step.tasks or step.tasks < 2:
            continue
        for command in case.trained(step):
            for name in _RANKS if not starts_ranks(command) else ():
                found = command.variables.get(name)
                if not found or not found.exported or not found.place or found.place in said:
                    continue
                written = not known(found.raw) and not _early(case, step.command)  # in a here-document
                host = any(a.place == found.place and not a.in_task for a in case.script.assignments)
                if (host or written) and set(holes(found.text)) & set(_PER_TASK):
                    said.add(found.place)
                    how = f"Write \\{shown(found.raw)}" if written else "Set it in the task"
                    yield Hit(place=found.place, message=f"{name} is set once, in the batch script, where"
                              f" {shown(found.raw)} is 0: all ranks get 0. {how}")  # fmt: skip


def _early(case: Case, command: Command, *, raw: bool = False) -> list[tuple[int, Word, list[str]]]:
    """The words of *command* with variables that only a task knows and that were filled in before, and their names."""
    names = {*_PER_TASK, *case.site.check.inside}
    texts = [(at, word, word.raw if raw else word.text) for at, word in enumerate(command.words) if at or raw]
    return [(at, word, found) for at, word, text in texts if (found := [name for name in holes(text) if name in names])]


def _in_words(case: Case) -> Iterator[Hit]:
    inside = case.site.check.inside
    for step in case.steps:
        early = _early(case, step.command)
        for at, word, found in early:
            if found[0] in _PER_TASK and (step.tasks or 2) < 2:
                continue
            ignored = step.command.words[at - 1].text.replace("_", "-") == "--node-rank" and _c10d(step)
            where = "in the container" if found[0] in inside else "in the task"
            yield Hit(place=word.place, edits=_escaped(case, word, found),
                      severity="note" if ignored else None if found[0] in _PER_TASK else "warning",
                      message=f"${found[0]} is expanded by the batch script, not {where}; put the text in single"
                      " quotes or write \\$")  # fmt: skip
        if not early:
            yield from _in_written(case, step)


def _in_written(case: Case, step: Step) -> Iterator[Hit]:
    """The same in a script that a here-document writes for the tasks."""
    if (step.tasks or 2) < 2:
        return
    for command in step.starts:
        for _, word, found in _early(case, command, raw=True):
            if word.place.start is None:
                yield Hit(place=word.place, message=f"${found[0]} is filled in where the batch script writes this line,"
                          " not in the task; quote the mark of the here-document or write \\$")  # fmt: skip


def _c10d(step: Step) -> bool:
    """Whether torchrun gives out the numbers of nodes itself, so that `--node-rank` does not count."""
    return any("c10d" in word.text for word in step.command.words)


def _escaped(case: Case, word: Word, names: list[str]) -> tuple[Edit, ...]:
    """The edit that puts a backslash before the variables, in text of `bash -c` in double quotes."""
    if not word.raw.startswith('"') or " " not in word.raw or word.place.path != case.script.path:
        return ()
    names_pattern = "|".join(sorted(set(names)))
    return replace_text(word.place, re.sub(rf"(?<!\\)\$(?=\{{?({names_pattern})\b)", r"\\$", word.raw))


def _literal(case: Case) -> Iterator[Hit]:
    for command in case.script.commands:
        if command.name not in ("bash", "sh"):
            continue
        for word in command.words[1:]:
            found = re.search(r"\\\$\{?(SLURM_\w+|MASTER_\w+)", word.raw) if word.raw.startswith("'") else None
            if found and not (
                re.search(r"\b(ba|da|z|k)?sh\s+-\w*c\b", word.raw) and word.raw.count('"', 0, found.start()) % 2
            ):
                fixed = re.sub(r"\\(\$\{?(?:SLURM_|MASTER_)\w+)", r"\1", word.raw)
                yield Hit(place=word.place, edits=replace_text(word.place, fixed) if "\n" not in word.raw else (),
                          message=f"{found[0]} in single quotes stays the text ${found[1]}: there the backslash"
                          " is too much")  # fmt: skip


def _star(case: Case) -> Iterator[Hit]:
    text, base = case.script.text, case.script.base
    for match in re.finditer(r"(?m)^([ \t]*exec )(\\?)\$\*[ \t]*$", text) if base == 0 else ():
        line = text.count("\n", 0, match.start(1) + len(match[1]) - len(match[1].lstrip()))
        edits = (Edit(start=match.start(2), end=match.end(), text=f'"{match[2]}$@"'),)
        yield Hit(place=case.script.line_place(line), edits=edits,
                  message='`exec $*` tears words with blanks apart; `exec "$@"` keeps them')  # fmt: skip


RULES = (
    Rule(id="LM601", name="no-srun", severity="warning", title="Several nodes or tasks, and no srun",
         reason="Slurm runs the batch script once, on the first node.", source="Slurm's sbatch(1)", look=_no_srun),
    Rule(id="LM602", name="world-size", severity="error", title="A world of another size than the tasks",
         reason="Ranks that do not exist are waited for; too many share devices.", source=_MULTI, look=_world),
    Rule(id="LM603", name="fixed-port", severity="warning", title="A fixed port",
         reason="Nodes may be shared, and a job that has just ended may still hold the port.", source=_MULTI,
         look=_port),
    Rule(id="LM604", name="local-master", severity="error", title="A master address that is each node's own",
         reason="All ranks have to meet on one node.", source=_MULTI, look=_address),
    Rule(id="LM605", name="rank-on-host", severity="error", title="A rank that is set before the tasks start",
         reason="SLURM_PROCID and its kin have their values in the tasks only.", source=_MULTI, look=_on_host),
    Rule(id="LM606", name="expanded-early", severity="error", title="A task's variable expanded by the batch script",
         reason="Double quotes are filled in before srun starts.", source="LUMI container documentation ($WITH_CONDA);"
         " accelerate issue 2816", look=_in_words),
    Rule(id="LM607", name="escaped-in-single-quotes", severity="warning", title="A backslash too much",
         reason="Single quotes keep everything, the backslash as well.", source="Bash manual, 3.1.2", look=_literal),
    Rule(id="LM608", name="exec-star", severity="note", title="`exec $*`",
         reason="Words with blanks in them are split again.", source="Bash manual, 3.4.2", look=_star),
    Rule(id="LM609", name="step-over-job", severity="error", title="A step on more nodes than the job has",
         reason="A step runs within what the job was given.", source="Slurm's srun(1)", look=_over_job),
)  # fmt: skip
