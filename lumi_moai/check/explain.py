"""A batch script in words: line by line what it asks for and starts."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..errors import RequestError
from ..sbatch import Directive
from ..site import Site
from ..units import format_gib, format_minutes, parse_gib, parse_minutes
from .case import Case, Step, is_torchrun, option_value, torchrun_value
from .launched import launched
from .parts import components
from .programs import CONTAINERS, image
from .script import Command, Script

_ONE = re.compile(r"(?<![\w.,:/-])1 (core|device|node|rank|task)s\b")


@dataclass(frozen=True, kw_only=True)
class Told:
    """What one line of the script means."""

    line: int
    text: str
    meaning: str


def explain(script: Script, site: Site) -> tuple[Told, ...]:
    """The meaning of each line of *script* that asks for something or starts something, in their order."""
    found: dict[int, list[str]] = {}
    for line, meaning in _all(script, site):
        told = found.setdefault(line, [])
        if (said := _ONE.sub(r"1 \1", meaning)) not in told:
            told.append(said)
    lines = script.text.split("\n")
    return tuple(
        Told(line=line, text=lines[line - 1].strip(), meaning="; ".join(found[line]))
        for line in sorted(found)
        if line <= len(lines)
    )


def _all(script: Script, site: Site) -> Iterator[tuple[int, str]]:
    """Each line and its meaning, of all components of the job."""
    first, *later = components(script)
    case = Case(site, first)
    yield from (*_directives(case), *_late(case), *_variables(case), *_commands(case))
    for number, part in enumerate(later, 1):
        case = Case(site, part)
        if part.header.lines:
            yield part.header.lines[0] + 1, f"component {number} of the job"
        yield from _directives(case)
        for line, meaning in _commands(case):
            yield line, f"in component {number}: {meaning}"


def _directives(case: Case) -> Iterator[tuple[int, str]]:
    for directive in case.script.header.directives:
        if directive.line not in case.script.header.lines:
            continue  # taken over from the component before
        last = case.script.directive(directive.name)
        meaning = _meaning(case, directive)
        yield directive.line + 1, meaning if last is directive else f"{meaning} (a later line stands in its place)"


def _late(case: Case) -> Iterator[tuple[int, str]]:
    for line in case.script.header.late:
        yield line + 1, "a comment: Slurm stops reading at the first command"


def _meaning(case: Case, directive: Directive) -> str:
    words = _WORDS.get(directive.name)
    if directive.name in _OWN:
        try:
            return _OWN[directive.name](case, directive.value)
        except RequestError:
            return f"--{directive.name}: {directive.value!r} cannot be read"
    if words:
        return words.format(directive.value)
    return f"--{directive.name}{f' is {directive.value}' if directive.value else ''}"


def _partition(case: Case, name: str) -> str:
    if case.partition is None or case.node is None:
        return f"in partition {name}, which site {case.site.name} does not have"
    sold = "whole nodes" if case.partition.allocation == "node" else "parts of nodes"
    return (
        f"in partition {name}: {sold}, at most {format_minutes(case.partition.max_minutes)} and"
        f" {case.partition.max_nodes} nodes a job"
    )


def _time(_case: Case, text: str) -> str:
    return f"ends after {format_minutes(parse_minutes(text))} at the latest"


def _memory(case: Case, text: str) -> str:
    gib = parse_gib(text)
    return "all memory of each node" if gib == 0 else f"{format_gib(gib)} of memory on each node"


def _cpus(case: Case, text: str) -> str:
    tasks = case.tasks_per_node
    total = f", {int(text) * tasks} on a node" if tasks and text.isdigit() else ""
    return f"{text} cores for each task{total}"


def _devices(case: Case, text: str) -> str:
    most = f" of {case.node.devices}" if case.node and case.node.devices else ""
    return f"{text.rpartition(':')[2]}{most} devices on each node"


_OWN: dict[str, Callable[[Case, str], str]] = {
    "partition": _partition, "time": _time, "mem": _memory, "cpus-per-task": _cpus, "gpus-per-node": _devices,
}  # fmt: skip
_WORDS = {
    "account": "paid by project {}", "nodes": "{} nodes", "ntasks": "{} tasks in all",
    "ntasks-per-node": "{} tasks on each node", "gpus": "{} devices in all, spread over the nodes as Slurm likes",
    "gpus-per-task": "{} devices for each task, shut in with it", "job-name": "is called {}",
    "output": "the log is {}", "error": "errors go to {}", "exclusive": "no other job on its nodes",
    "array": "runs once for each of {}", "exclude": "not on {}", "nodelist": "only on {}",
    "signal": "is told of its end by {}", "requeue": "begins again after a node failure",
    "no-requeue": "does not begin again after a node failure", "open-mode": "its log is opened to {}",
    "mem-per-gpu": "{} of memory for each device", "mem-per-cpu": "{} of memory for each core",
    "hint": "cores by the hint {}", "dependency": "waits for {}", "qos": "with the quality of service {}",
    "reservation": "in the reservation {}", "comment": "a remark: {}", "mail-type": "mail at {}",
}  # fmt: skip


def _variables(case: Case) -> Iterator[tuple[int, str]]:
    known = {variable.name: variable.reason for variable in case.site.environment}
    known |= {cache.variable: cache.reason for cache in case.site.caches}
    known |= {"MASTER_ADDR": "the node where the ranks meet", "MASTER_PORT": "the port where the ranks meet",
              "WORLD_SIZE": "how many ranks there are"}  # fmt: skip
    for found in case.script.assignments:
        if found.variable.name in known and found.place.path == case.script.path:
            yield found.place.line, f"{found.variable.name}: {known[found.variable.name]}"


def _commands(case: Case) -> Iterator[tuple[int, str]]:
    steps = {id(step.command): step for step in case.steps}
    for command in case.script.commands:
        if command.place.path != case.script.path:
            continue
        if id(command) in steps:
            yield command.place.line, _step(steps[id(command)])
        elif told := _command(command):
            yield command.place.line, told


def _step(step: Step) -> str:
    tasks = f"{step.tasks} tasks" if step.tasks else "as many tasks as the job has"
    nodes = f" on {step.nodes} nodes" if step.nodes else ""
    cpus = f", {step.cpus_per_task} cores each" if step.cpus_per_task else ""
    bound = ", bound to cores by hand" if step.cpu_bind else ""
    return f"starts {tasks}{nodes}{cpus}{bound}"


def _command(command: Command) -> str:
    texts = [word.shown for word in command.words]
    if command.name in CONTAINERS and (at := image([word.text for word in command.words])) is not None:
        return f"in the image {command.words[at].shown}"
    if is_torchrun(command):
        procs = torchrun_value(command, "nproc-per-node")
        return f"torchrun starts {option_value(procs) if procs else 1} ranks for each task"
    if command.name in ("module", "ml"):
        return f"modules: {' '.join(texts[1:])}"
    if re.fullmatch(r"python[\d.]*", command.name) and len(texts) > 1:
        program = launched(command)
        return f"runs {program.program}" if program else "runs lines of Python" if "-c" in texts else "runs Python"
    if command.name in ("source", "."):
        return f"takes over what {texts[1] if len(texts) > 1 else 'nothing'} sets"
    return ""
