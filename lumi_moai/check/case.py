"""A script seen with a site's eyes: its partition and node, the shape of the job and of each of its steps."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..sbatch.options import Option, options
from ..site import Node, Partition, Site
from .rule import Edit
from .script import Command, Place, Script, Word
from .value import whole_number

LAUNCHERS = frozenset(("torchrun", "accelerate", "deepspeed", "torch-distributed-run"))
_MOST_STEPS = 200
_TRAINING = re.compile(rf"{'|'.join(LAUNCHERS)}|accelerate-launch|python[\d.]*")
_ELSEWHERE = frozenset(("mpirun", "mpiexec", "pdsh", "ssh", "clush", "deepspeed", "ray", "parallel", "sbatch", "flux"))


@dataclass(frozen=True, kw_only=True)
class Step:
    """An `srun` command with its options; a number is None where it is not certain."""

    command: Command
    options: Mapping[str, Option]
    nodes: int | None
    tasks: int | None
    cpus_per_task: int | None
    starts: tuple[Command, ...]
    """What runs in its tasks."""

    @property
    def tasks_per_node(self) -> int | None:
        """Tasks on each node."""
        return None if not self.tasks or not self.nodes or self.tasks % self.nodes else self.tasks // self.nodes

    def word(self, option: Option) -> Word:
        """The word of the command in which *option* begins."""
        return self.command.words[option.first + 1]

    @property
    def cpu_bind(self) -> str | None:
        """What `--cpu-bind` or SLURM_CPU_BIND says."""
        option = self.options.get("cpu-bind")
        return option.value if option else self.command.value("SLURM_CPU_BIND")


@dataclass(frozen=True)
class Case:
    """*script* on *site*; a number is None where the script does not fix it."""

    site: Site
    script: Script
    exists: Callable[[str], bool] = lambda _folder: False
    """Whether a folder is known to be there."""

    @cached_property
    def partition(self) -> Partition | None:
        """The partition, None when it is not named or not of this site."""
        return self.site.partitions.get(self.script.asked.partition or "")

    @cached_property
    def node(self) -> Node | None:
        """The kind of node behind the partition."""
        return self.site.node(self.partition) if self.partition else None

    @cached_property
    def nodes(self) -> int | None:
        """Nodes of the job; one where neither nodes nor tasks are named, None where Slurm may choose."""
        asked = self.script.asked
        if (found := self.script.directive("nodes")) is not None:
            least, _, most = found.value.partition("-")
            return asked.nodes if not most or least == most else None
        if asked.ntasks and asked.tasks_per_node:
            return -(-asked.ntasks // asked.tasks_per_node)
        return 1 if not self._tells("ntasks", "gpus") or asked.ntasks == 1 else None

    def _tells(self, *names: str) -> bool:
        return any(self.script.directive(name) is not None for name in names)

    @cached_property
    def tasks(self) -> int | None:
        """Tasks of the job."""
        asked = self.script.asked
        if asked.ntasks:
            return asked.ntasks
        if self._tells("ntasks", "ntasks-per-gpu", "gpus-per-task") or self.nodes is None:
            return None
        return self.nodes * (asked.tasks_per_node or 1) if asked.tasks_per_node or not self._per_node else None

    @property
    def _per_node(self) -> bool:
        return self._tells("ntasks-per-node")

    @property
    def tasks_per_node(self) -> int | None:
        """Tasks on each node."""
        if self.script.asked.tasks_per_node:
            return self.script.asked.tasks_per_node
        return None if not self.tasks or not self.nodes or self.tasks % self.nodes else self.tasks // self.nodes

    @cached_property
    def devices_per_node(self) -> int | None:
        """Devices on each node; None where they are not asked for, or not by node."""
        asked = self.script.asked
        if asked.devices_per_node is not None:
            return asked.devices_per_node
        if asked.devices is not None and self.nodes:
            return asked.devices // self.nodes if asked.devices % self.nodes == 0 else None
        per_task, tasks = asked.devices_per_task, self.tasks_per_node
        return per_task * tasks if per_task is not None and tasks else None

    @property
    def asks_devices(self) -> bool:
        """Whether devices are asked for in any spelling."""
        names = ("gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket", "gres", "ntasks-per-gpu", "tres-per-task")
        return self._tells(*names)

    @property
    def exclusive(self) -> bool:
        """Whether `--exclusive` gives the job all of its nodes to itself."""
        found = self.script.directive("exclusive")
        return found is not None and found.value == ""

    @property
    def owns_nodes(self) -> bool:
        """Whether the job has whole nodes: by its partition, by `--exclusive`, or by asking for all cores."""
        if self.partition is None or self.node is None:
            return False
        cores = (self.tasks_per_node or 0) * (self.script.asked.cpus_per_task or 1)
        return self.partition.allocation == "node" or self.exclusive or cores >= len(self.node.usable_cores)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Its `srun` commands that stand in the batch script, not those inside other steps."""
        found = [command for command in self.script.commands if command.name == "srun" and command.step is None]
        return tuple(self._step(command) for command in found[:_MOST_STEPS])

    def _step(self, command: Command) -> Step:
        found, _ = options([word.text for word in command.words[1:]], program=True)
        named = {option.name: option for option in found}

        def number(name: str) -> int | None:
            return whole_number(named[name].value) if name in named else None

        nodes = number("nodes") if "nodes" in named else self.nodes
        per_node = number("ntasks-per-node")
        if "ntasks" in named:
            tasks = number("ntasks")
        elif per_node and self.script.asked.ntasks is None:
            tasks = nodes * per_node if nodes else None
        else:
            tasks = self.tasks if nodes == self.nodes else None
        cpus = number("cpus-per-task") if "cpus-per-task" in named else self.script.asked.cpus_per_task
        starts = tuple(c for c in self.script.commands if command in c.within)
        return Step(command=command, options=named, nodes=nodes, tasks=tasks, cpus_per_task=cpus, starts=starts)

    def training(self) -> Iterator[Command]:
        """Commands that train, as far as their name tells."""
        return iter(self._training)

    @cached_property
    def _training(self) -> tuple[Command, ...]:
        found = [c for c in self.script.commands if _TRAINING.fullmatch(c.name) and not _is_small(c)]
        return tuple(found[:_MOST_STEPS])

    def trained(self, step: Step) -> tuple[Command, ...]:
        """Those that *step* starts."""
        return tuple(command for command in self._training if command.step is step.command)

    @property
    def steps_or_training(self) -> bool:
        """Whether the job does some work that a rule can see."""
        return bool(self.steps) or next(self.training(), None) is not None

    @property
    def launches_elsewhere(self) -> bool:
        """Whether something else than `srun` may reach other nodes or tasks."""
        return any(command.name in _ELSEWHERE for command in self.script.commands)

    @cached_property
    def images(self) -> tuple[str, ...]:
        """The images that the job runs in, as far as they are known."""
        from .programs import CONTAINERS, image

        found = []
        for command in self.script.commands:
            texts = [word.text for word in command.words]
            if command.name in CONTAINERS and (at := image(texts)) is not None:
                found.append(command.words[at].shown)
        return tuple(found)

    def hidden(self, command: Command) -> bool:
        """Whether something unread may have set variables for *command*, or runs between it and its tasks."""
        return not command.seen or any(one.sourced for one in self.script.absent) or self._absent_in(command)

    def _absent_in(self, command: Command) -> bool:
        return any(command in one.within or one.within[-1:] == (command,) for one in self.script.absent)

    def add_directive(self, text: str) -> tuple[Edit, ...]:
        """The edit that adds `#SBATCH text` below the last directive; none in a script that another one writes."""
        header = self.script.header
        lines = [line for line in header.lines if header.hetjob is None or line < header.hetjob]
        if not lines or self.script.base is None:
            return ()
        end = self.script.line_place(lines[-1]).end
        return (Edit(start=end, end=end, text=f"\n#SBATCH {text}"),) if end is not None else ()

    def set_directive(self, name: str, value: str) -> tuple[Edit, ...]:
        """The edit that gives the directive *name* another value."""
        found = self.script.directive(name)
        place = self.script.place(found, value=True) if found else None
        return replace_text(place, value) if place and found and found.value_start < found.end else ()

    def rename_directive(self, name: str, text: str) -> tuple[Edit, ...]:
        """The edit that puts the option *text* in place of the directive *name*."""
        found = self.script.directive(name)
        return replace_text(self.script.place(found), text) if found else ()

    @property
    def top(self) -> Place:
        """Where a finding about the whole script points: its last directive, else its first line."""
        lines = self.script.header.lines
        return self.script.line_place(lines[-1] if lines else 0)


def _is_small(command: Command) -> bool:
    texts = [word.text for word in command.words]
    return len(texts) < 2 or texts[1] in ("-c", "-V", "--version") or "venv" in texts or "pip" in texts


def replace_text(place: Place, text: str) -> tuple[Edit, ...]:
    """The edit that writes *text* over *place*, none where nothing may be changed."""
    if place.start is None or place.end is None:
        return ()
    return (Edit(start=place.start, end=place.end, text=text),)


def torchrun_value(command: Command, *names: str) -> Word | None:
    """The word with the value of torchrun's option `--nproc-per-node` (or `--nproc_per_node`), with `=` or apart."""
    for at, word in enumerate(command.words):
        name, equals, _ = word.text.partition("=")
        if name.startswith("--") and name.lstrip("-").replace("_", "-") in names:
            if equals:
                return word
            return command.words[at + 1] if at + 1 < len(command.words) else None
    return None


def option_value(word: Word) -> str:
    """The value in a word that `torchrun_value` found."""
    return word.text.partition("=")[2] if word.text.startswith("--") else word.text


def starts_ranks(command: Command) -> bool:
    """Whether it is a launcher, which starts the ranks of its node itself and numbers them."""
    texts = {word.text for word in command.words[1:4]}
    names = (*LAUNCHERS, "accelerate-launch")
    modules = {"accelerate.commands.launch", "deepspeed.launcher.runner"}
    return is_torchrun(command) or command.name in names or bool(texts & modules)


def is_torchrun(command: Command) -> bool:
    """Whether it is torchrun under one of its names."""
    texts = [word.text for word in command.words]
    module = texts[texts.index("-m") + 1 : texts.index("-m") + 2] if "-m" in texts else []
    return command.name == "torchrun" or module in (["torch.distributed.run"], ["torch.distributed.launch"])
