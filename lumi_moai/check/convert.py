"""A batch script as a job of lumi-moai: the flavor, the settings of a project file, the submit line, what differs."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from .. import flavor as flavors
from ..errors import RequestError
from ..flavor import Flavor, Placement
from ..job import GUARDED
from ..site import Site
from ..units import format_gib, format_minutes
from .case import Case, is_torchrun
from .launched import Launched, programs
from .parts import components
from .programs import SHELLS
from .script import Command, Script
from .value import known

# What lumi-moai sets by itself, for every job.
_OWN = re.compile(
    r"MASTER_(ADDR|PORT)|(LOCAL_|NODE_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE|SLURM_\w+|SRUN_\w+|SINGULARITY\w*|APPTAINER\w*"
    r"|CMD|LAUNCHER|PATH|PWD|HOME|LD_LIBRARY_PATH|PYTHONPATH|PYTHONUNBUFFERED|CONTAINER|SIF|IMAGE|C(C|XX)"
)
_SECRET = re.compile(r"TOKEN(?!IZER)|SECRET|PASSW|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY", re.IGNORECASE)
# What `accelerate launch` tells the script by variables.
_BY_ACCELERATE = {
    "--mixed-precision": "ACCELERATE_MIXED_PRECISION",
    "--gradient-accumulation-steps": "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
}
# Commands around a program that are not missed, and those whose lack is.
_SILENT = frozenset(("echo", "export", "set", "date", "hostname", "printf", "true", "[", "test", "exec"))
_WITHIN = frozenset(("conda", "mamba", "micromamba", "uv", "poetry", "pixi", "numactl", "taskset"))


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A script as lumi-moai would run it."""

    placement: Placement
    settings: dict[str, str]
    """For the project file."""
    env: dict[str, str]
    sbatch: dict[str, str]
    """Further options of sbatch, which the project file keeps too."""
    options: tuple[str, ...]
    """Of the submit line."""
    command: tuple[str, ...]
    """The Python script and its arguments."""
    differences: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Where the Python script lies, as seen from where the batch script runs."""
        folder = self.command[0].rpartition("/")[0]
        return "" if "$" in folder else folder

    @property
    def submit(self) -> tuple[str, ...]:
        """The words of the submit line."""
        return ("lumi-moai", "submit", "--flavor", self.placement.flavor.name, *self.options, *self.command)


def convert(
    script: Script, site: Site, menu: Sequence[Flavor], exists: Callable[[str], bool] = lambda _: False
) -> Converted:
    """*script* as a job of *site*, with the smallest flavor of *menu* that has its devices.

    *exists* tells whether a file is known to be there.
    Raises RequestError when the script has no devices or starts no Python program that can be seen.
    """
    first, *later = components(script)
    case = Case(site, first)
    program = _program(case)
    command = program.command
    words, module = _words(program, exists)
    placement = _placement(case, menu)
    env, left = _environment(case, command)
    sbatch = {d.name: d.value for d in script.header.directives if _further(case, d.name)}
    options = [*_name(case), *(("--array", d.value) if (d := script.directive("array")) else ())]
    settings = {"site": site.name, "partition": placement.partition.name}
    settings |= {"account": script.asked.account} if script.asked.account else {}
    settings |= {"time": format_minutes(script.asked.minutes)} if script.asked.minutes else {}
    settings |= {"launcher": "torchrun"} if is_torchrun(command) else {}
    settings |= {} if _in_container(command) else {"container": "none"}
    told, by_launcher = _by_launcher(program)
    env |= told
    settings |= {"parallel": "script"} if by_launcher else {}
    return Converted(
        placement=placement, settings=settings, env=env, sbatch=sbatch, options=tuple(options), command=words,
        differences=(
            *_shape(case, placement), *_start(case, site, command), *by_launcher, *module, *left,
            *_around(case, command), *_others(case, program, len(later)), *_open(words),
        ),
    )  # fmt: skip


def _program(case: Case) -> Launched:
    """The program that trains."""
    found = programs(case)
    inside = [one for one in found if one.command.step is not None]
    started = [step.starts[-1] for step in case.steps if step.starts]
    others = [one for one in started if not one.name.startswith("python")]
    if not found:
        seen = (
            f"starts {others[-1].words[0].shown}, and no Python program that"
            if others
            else "starts no Python program that"
        )
        raise RequestError(f"{case.script.path} {seen} can be seen; name it yourself: lumi-moai submit SCRIPT")
    if others and not inside:
        raise RequestError(
            f"srun starts {others[-1].words[0].shown} in {case.script.path}, and no Python program is seen"
            " in it; name the program yourself: lumi-moai submit SCRIPT"
        )
    return (inside or found)[-1]


def _words(program: Launched, exists: Callable[[str], bool]) -> tuple[tuple[str, ...], list[str]]:
    """The file and the arguments of the submit line, and what to do where the program is a module."""
    if not program.module:
        return (program.program, *program.arguments), []
    path = program.program.replace(".", "/")
    lines = f"`import runpy` and `runpy.run_module({program.program!r}, run_name='__main__', alter_sys=True)`"
    for file in (f"{path}.py", f"{path}/__main__.py"):
        if exists(file):
            said = f"the module {program.program} runs as the file {file}; if it imports from its own package,"
            return (file, *program.arguments), [f"{said} submit a file of two lines: {lines}"]
    file = f"run_{re.sub(r'[^A-Za-z0-9_]', '_', program.program)}.py"
    return (file, *program.arguments), [f"the module {program.program} needs a file, {file}, of two lines: {lines}"]


def _nodes(case: Case) -> int:
    """Nodes of the job; of a range the most, as the price counts it."""
    return case.nodes or case.script.asked.nodes or 1


def _placement(case: Case, menu: Sequence[Flavor]) -> Placement:
    if case.partition is None:
        raise RequestError(
            f"{case.script.path} names no partition of site {case.site.name} ({', '.join(case.site.partitions)})"
        )
    wanted = _nodes(case) * (case.devices_per_node or 0)
    if not wanted:
        raise RequestError(f"{case.script.path} asks for no devices, and a flavor is a number of devices")
    fits = [flavors.fit(case.site, one, case.partition) for one in menu]
    enough = [fit for fit in fits if fit.devices >= wanted and fit.nodes <= case.partition.max_nodes]
    if not enough:
        raise RequestError(f"no flavor has the {wanted} devices of {case.script.path}; `lumi-moai flavors` lists them")
    return min(enough, key=lambda fit: (fit.devices, abs(fit.flavor.devices - wanted)))


def _in_container(command: Command) -> bool:
    return any(one.name in ("singularity", "apptainer") for one in command.within)


def _name(case: Case) -> tuple[str, ...]:
    found = case.script.directive("job-name")
    plain = found is not None and re.fullmatch(r"[A-Za-z0-9][\w.-]{0,60}", found.value)
    return ("--job-name", found.value) if found and plain else ()


def _further(case: Case, name: str) -> bool:
    whole = case.partition is not None and case.partition.allocation == "node"
    ours = {*GUARDED, "requeue", "no-requeue", "hint", "gpu-bind", "mail-type", "mail-user", ""}
    return name not in ours and not (name == "exclusive" and whole)


def _environment(case: Case, command: Command) -> tuple[dict[str, str], list[str]]:
    """The variables that the program is given, and a sentence for each that is left out for a reason."""
    ours = {v.name: v.value for v in case.site.environment}
    ours |= {cache.variable: "" for cache in case.site.caches}
    kept, left = {}, []
    for found in (a.variable for a in case.script.assignments):
        last = command.variables.get(found.name)
        if last is None or not last.exported or last.place != found.place or _OWN.fullmatch(found.name):
            continue
        advice = next(
            (one for one in case.site.check.variables if re.search(one.pattern, f"{found.name}={found.text}")), None
        )
        if advice or found.name in case.site.check.visible_devices:
            left.append(
                f"{found.name} is left out{f': {advice.reason}' if advice else ': the runtime chooses devices'}"
            )
        elif _SECRET.search(found.name):
            left.append(f"{found.name} is left out: secrets stay in the environment that submits")
        elif found.name in ours:
            left += [f"{found.name} is the site's own"] if ours[found.name] != found.text else []
        elif known(found.text) and found.text.isprintable():
            kept[found.name] = found.text
        else:
            left.append(f"{found.name} is left out: its value is known in the job only")
    return kept, left


def _shape(case: Case, placement: Placement) -> Iterator[str]:
    asked, node = case.script.asked, case.site.node(placement.partition)
    wanted = _nodes(case) * (case.devices_per_node or 0)
    if placement.devices != wanted:
        yield f"{placement.devices} devices in place of {wanted}: the nearest flavor"
    if placement.nodes != _nodes(case):
        yield f"{placement.nodes} node{'s' if placement.nodes > 1 else ''} in place of {_nodes(case)}"
    cores = (case.tasks_per_node or 1) * (asked.cpus_per_task or 1)
    ours = placement.devices_per_node * placement.cores_per_device
    if cores != ours:
        yield f"{ours} cores on a node in place of {cores}"
    memory = asked.memory_gib if asked.memory_gib else (asked.memory_gib_per_device or 0) * (case.devices_per_node or 0)
    if asked.memory_gib == 0 or (memory and memory != placement.memory_gib):
        said = "all of it" if asked.memory_gib == 0 else format_gib(memory)
        yield f"{placement.memory_gib}G of memory on a node in place of {said}"
    if placement.whole_node and node.bind and not any(step.cpu_bind for step in case.steps):
        yield "each rank is bound to the cores beside its device"


def _start(case: Case, site: Site, command: Command) -> Iterator[str]:
    yield "logs, certificate and bill lie in a run folder"
    if any(found.variable.name == "MASTER_PORT" and found.variable.text.isdigit() for found in case.script.assignments):
        yield "the port is made of the job id"
    if case.images and case.images[-1] not in [one.image for one in site.containers.values()]:
        yield f"the image is the site's {site.default_container}, not {case.images[-1]}"
    if any(one.name in ("module", "ml") for one in case.script.commands) and _in_container(command):
        yield "modules of the script are not loaded: the container brings its own"
    for one in case.script.absent:
        yield f"{one.path} is not here, so what it does is not taken over"
    if not is_torchrun(command) and case.tasks and (case.devices_per_node or 0) * _nodes(case) != case.tasks:
        yield f"one rank for each device, in place of {case.tasks} tasks"


def _by_launcher(program: Launched) -> tuple[dict[str, str], list[str]]:
    """Variables in the place of a launcher's options, and what is said of the others."""
    if program.launcher in ("python", "torchrun"):
        return {}, []
    given = {v: text for option, v in _BY_ACCELERATE.items() if (text := program.option(option)) and known(text)}
    told = given if program.launcher == "accelerate" else {}
    left = [
        one for one in program.options if _BY_ACCELERATE.get(re.split("[ =]", one)[0].replace("_", "-")) not in told
    ]
    said = [
        f"{program.launcher} starts no ranks: lumi-moai starts one for each device, with the variables that the script"
        " reads"
    ]
    if left:
        said.append(f"not taken over from {program.launcher}: {', '.join(left)}; let the script say it")
    return told, said


def _around(case: Case, command: Command) -> Iterator[str]:
    """What runs ahead of the program in a shell of its own, or around it."""
    shells = [one for one in command.within if one.name in SHELLS]
    beside = [one for one in case.script.commands if shells and one.within and one.within[-1] is shells[-1]]
    left = [one for one in beside if one is not command and one not in command.within and one.name not in _SILENT]
    left += [one for one in command.within if one.name in _WITHIN]
    texts = [" ".join(word.shown for word in one.words[:4]) for one in left]
    if texts:
        yield f"not taken over from around the program: {', '.join(dict.fromkeys(texts[:4]))}"


def _others(case: Case, program: Launched, components: int) -> Iterator[str]:
    """Other programs that srun starts, and other components of the job."""
    if components:
        several = "further components of the job are" if components > 1 else "second component of the job is"
        yield f"the {several} not taken over"
    inside = [one.program for one in programs(case) if one.command.step is not None]
    if others := [name for name in dict.fromkeys(inside) if name != program.program]:
        yield f"other programs that srun starts are not taken over: {', '.join(others[:4])}"


def _open(words: Sequence[str]) -> Iterator[str]:
    if unknown := [word for word in words if "$" in word]:
        yield f"put in by hand what is known in the job only: {', '.join(unknown[:4])}"
