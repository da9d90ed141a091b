"""The components of a heterogeneous job, each as a script of its own: its directives, and the steps that name it."""

import re
from dataclasses import replace

from ..sbatch import Header, asked_of, parts
from ..sbatch.options import options
from .rule import Hit
from .script import Command, Script


def components(script: Script) -> tuple[Script, ...]:
    """*script*; if it is a heterogeneous job, a script for each component, with the commands that run in it."""
    if not script.header.later:
        return (script,)
    first, *later = parts(script.header)
    begin = replace(script, header=first, commands=_commands(script, 0))
    return (begin, *(_component(script, number, part) for number, part in enumerate(later, 1)))


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
