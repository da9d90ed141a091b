"""A batch script as a job of lumi-moai: the flavor, the settings of a project file, the submit line, what differs."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import flavor as flavors
from ..errors import RequestError
from ..flavor import Flavor, Placement
from ..job import GUARDED
from ..site import Site
from ..units import format_gib, format_minutes
from .case import Case, is_torchrun
from .script import Command, Script
from .value import holes, known, shown

# What lumi-moai sets by itself, for every job.
_OWN = re.compile(
    r"MASTER_(ADDR|PORT)|(LOCAL_|NODE_|GROUP_)?RANK|(LOCAL_)?WORLD_SIZE|SLURM_\w+|SRUN_\w+|SINGULARITY\w*|APPTAINER\w*"
    r"|PATH|PWD|HOME|LD_LIBRARY_PATH|PYTHONPATH|PYTHONUNBUFFERED|CONTAINER|SIF|IMAGE|C(C|XX)"
)
_SECRET = re.compile(r"TOKEN(?!IZER)|SECRET|PASSW|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY", re.IGNORECASE)
# torchrun's options that have no value.
_TORCHRUN_FLAGS = frozenset(("--standalone", "--no-python", "--no_python", "--run-path", "--run_path", "-h", "--help"))


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
    def submit(self) -> tuple[str, ...]:
        """The words of the submit line."""
        return ("lumi-moai", "submit", "--flavor", self.placement.flavor.name, *self.options, *self.command)


def convert(script: Script, site: Site, menu: Sequence[Flavor]) -> Converted:
    """*script* as a job of *site*, with the smallest flavor of *menu* that has its devices.

    Raises RequestError when the script has no devices or starts no Python program that can be seen.
    """
    case = Case(site, script)
    command, words = _program(case)
    placement = _placement(case, menu)
    env, left = _environment(case, command)
    sbatch = {d.name: d.value for d in script.header.directives if _further(case, d.name)}
    options = [*_name(case), *(("--array", d.value) if (d := script.directive("array")) else ())]
    settings = {"site": site.name, "partition": placement.partition.name}
    settings |= {"account": script.asked.account} if script.asked.account else {}
    settings |= {"time": format_minutes(script.asked.minutes)} if script.asked.minutes else {}
    settings |= {"launcher": "torchrun"} if is_torchrun(command) else {}
    settings |= {} if _in_container(command) else {"container": "none"}
    return Converted(
        placement=placement, settings=settings, env=env, sbatch=sbatch, options=tuple(options), command=words,
        differences=(*_shape(case, placement), *_start(case, site, command), *left, *_open(words)),
    )  # fmt: skip


def _program(case: Case) -> tuple[Command, tuple[str, ...]]:
    """The command that trains, and its script with arguments."""
    found = [(command, words) for command in case.training() if (words := _script(command))]
    if not found:
        raise RequestError(
            f"{case.script.path} starts no Python program that can be seen; name it yourself: lumi-moai submit SCRIPT"
        )
    inside = [pair for pair in found if pair[0].step is not None]
    started = [step for step in case.steps if step.starts and not step.starts[-1].name.startswith("python")]
    if started and not inside:
        raise RequestError(
            f"srun starts {started[-1].starts[-1].words[0].shown} in {case.script.path}, and no Python program is seen"
            " in it; name the program yourself: lumi-moai submit SCRIPT"
        )
    return (inside or found)[-1]


def _script(command: Command) -> tuple[str, ...]:
    """The Python script and its arguments in the words of python or torchrun; nothing for a module."""
    texts = [word.raw.strip('"') if "unread" in holes(word.text) else shown(word.text) for word in command.words]
    at = 1
    if is_torchrun(command) and "-m" in texts[:2]:
        at = 3
    while at < len(texts) and texts[at].startswith("-"):
        if texts[at] in ("-m", "--module", "-c"):
            return ()
        apart = is_torchrun(command) and "=" not in texts[at] and texts[at] not in _TORCHRUN_FLAGS
        at += 2 if apart or texts[at] in ("-W", "-X") else 1
    return tuple(texts[at:]) if at < len(texts) and texts[at].endswith(".py") else ()


def _placement(case: Case, menu: Sequence[Flavor]) -> Placement:
    if case.partition is None:
        raise RequestError(
            f"{case.script.path} names no partition of site {case.site.name} ({', '.join(case.site.partitions)})"
        )
    wanted = (case.nodes or 1) * (case.devices_per_node or 0)
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
    for found in (a.variable for a in case.script.assignments if not a.in_task):
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
    wanted = (case.nodes or 1) * (case.devices_per_node or 0)
    if placement.devices != wanted:
        yield f"{placement.devices} devices in place of {wanted}: the nearest flavor"
    if placement.nodes != (case.nodes or 1):
        yield f"{placement.nodes} node{'s' if placement.nodes > 1 else ''} in place of {case.nodes or 1}"
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
    if not is_torchrun(command) and case.tasks and (case.devices_per_node or 0) * (case.nodes or 1) != case.tasks:
        yield f"one rank for each device, in place of {case.tasks} tasks"


def _open(words: Sequence[str]) -> Iterator[str]:
    if unknown := [word for word in words if "$" in word]:
        yield f"put in by hand what is known in the job only: {', '.join(unknown[:4])}"
