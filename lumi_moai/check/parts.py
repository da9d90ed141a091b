"""The components of a heterogeneous job, each as a script of its own: its directives, and the steps that name it."""

import re
from dataclasses import replace

from ..sbatch import Header, asked_of
from ..sbatch.options import options
from .rule import Hit
from .script import Command, Script

# What a component takes over from the one before, unless it says something else (Slurm, heterogeneous_jobs.html).
_INHERITED = frozenset(
    (
        "account", "acctg-freq", "begin", "cluster-constraint", "clusters", "comment", "deadline", "delay-boot",
        "dependency", "distribution", "error", "exclude", "export", "export-file", "get-user-env", "hold", "input",
        "job-name", "mail-type", "mail-user", "mcs-label", "no-kill", "no-requeue", "open-mode", "output", "priority",
        "profile", "propagate", "qos", "requeue", "reservation", "signal", "time", "time-min", "wait", "wckey",
    )
)  # fmt: skip


def components(script: Script) -> tuple[Script, ...]:
    """*script*; if it is a heterogeneous job, a script for each component, with the commands that run in it."""
    if not script.header.later:
        return (script,)
    first = replace(script, commands=_commands(script, 0))
    before, found = script.header, [first]
    for number, part in enumerate(script.header.later, 1):
        own = {directive.name for directive in part.directives}
        taken = [one for one in before.directives if one.name in _INHERITED and one.name not in own]
        before = replace(part, directives=(*taken, *part.directives))
        found.append(_component(script, number, before))
    return tuple(found)


def _component(script: Script, number: int, part: Header) -> Script:
    return replace(
        script, header=part, asked=asked_of(part, script.text), commands=_commands(script, number), assignments=(),
        inner=(),
    )  # fmt: skip


def _commands(script: Script, number: int) -> tuple[Command, ...]:
    return tuple(command for command in script.commands if _runs_in(command, number))


def _runs_in(command: Command, number: int) -> bool:
    """Whether *command* runs in the component *number*: that of its step, else the first, where the script runs."""
    step = command if command.name == "srun" else command.step
    words = [word.text for word in step.words[1:]] if step else []
    given = {one.name: one.value for one in options(words, program=True)[0]}
    groups = given.get("het-group") or given.get("pack-group") or "0"
    if not re.fullmatch(r"\d{1,3}(-\d{1,3})?(,\d{1,3}(-\d{1,3})?)*", groups):
        return number == 0
    return any(number in _range(part) for part in groups.split(","))


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def named(hit: Hit, number: int, part: Script) -> Hit:
    """*hit* with the component in its message, and without a fix in another component's lines."""
    lines = {part.line_place(line).line for line in part.header.lines}
    edits = hit.edits if hit.place.line in lines else ()
    return replace(hit, message=f"component {number} of the job: {hit.message}", edits=edits)
