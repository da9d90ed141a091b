"""Rules on the `#SBATCH` lines themselves: what Slurm does not see, does not know, or refuses to read."""

import re
from collections.abc import Iterator

from ..errors import did_you_mean
from ..sbatch import Directive, header
from ..sbatch.asked import BOM
from ..sbatch.options import FLAGS, VALUES
from .case import Case, replace_text
from .forms import refused
from .reader import bourne
from .rule import Edit, Hit, Rule

_SLURM = "Slurm's sbatch(1)"
_FREE = frozenset(("job-name", "output", "error", "input", "comment"))  # any text is one of their values
_OPTIONAL = frozenset(("wait", "x11"))


def _late(case: Case) -> Iterator[Hit]:
    for line in case.script.header.late:
        if line not in case.script.comments:
            continue
        place = case.script.line_place(line)
        yield Hit(place=place, message="Slurm does not see this line: it stands below the first command",
                  edits=_moved_up(case, line))  # fmt: skip


def _moved_up(case: Case, line: int) -> tuple[Edit, ...]:
    """Take the line out and put it below the last that counts; not when that would change what is asked already."""
    place = case.script.line_place(line)
    text = case.script.file_text
    alone = header(text[place.start : place.end]).directives if place.start is not None else ()
    names = {directive.name for directive in alone}
    taken = {directive.name for directive in case.script.header.directives}
    added = case.add_directive(text[place.start : place.end].removeprefix("#SBATCH").strip()) if names else ()
    strange = names - FLAGS - VALUES
    if not added or place.start is None or place.end is None or taken & names or strange:
        return ()
    return (*added, Edit(start=place.start, end=min(place.end + 1, len(text)), text=""))


def _line_ends(case: Case) -> Iterator[Hit]:
    text = case.script.text
    if "\r\n" in text and not case.script.offset:
        edits = tuple(Edit(start=m.start(), end=m.start() + 1, text="") for m in re.finditer("\r\n", text))
        yield Hit(place=case.script.line_place(0), message="lines end as on Windows (CR LF): sbatch refuses the script",
                  edits=edits)  # fmt: skip


def _unknown(case: Case) -> Iterator[Hit]:
    for directive in case.script.header.directives:
        if directive.name in FLAGS or directive.name in VALUES or not directive.name:
            continue
        near = did_you_mean(directive.name, sorted(FLAGS | VALUES))
        name = re.search(r"'(.*)'", near)
        place = case.script.place(directive)
        written = f"--{name[1]}{directive.written[len(directive.name) + 2 :]}{directive.value}" if name else ""
        yield Hit(place=place, message=f"sbatch has no option --{directive.name}{near}",
                  severity=None if name else "note",
                  edits=replace_text(place, written) if name and "'" not in directive.value else ())  # fmt: skip


def _open_quote(case: Case) -> Iterator[Hit]:
    for line in case.script.header.open_quotes:
        yield Hit(place=case.script.line_place(line), message="a quote is open at the end of this line")


def _variable(case: Case) -> Iterator[Hit]:
    for directive in case.script.header.directives:
        # What another script writes has been through that one's shell.
        found = None if case.script.offset else re.search(r"\$\{?\w+|\$\(|`", directive.value)
        if found:
            yield Hit(place=case.script.place(directive, value=True),
                      message=f"{found[0]} stays as it is: Slurm reads #SBATCH lines, not the shell")  # fmt: skip


def _unreadable(case: Case) -> Iterator[Hit]:
    for directive in case.script.header.directives:
        place, value = case.script.place(directive), directive.value
        if name := _one_dash(case, directive):
            start = None if place.start is None else place.start + 1
            yield Hit(place=place, message=f"with one dash this is -{name[0]} and the value {value!r}; write --{name}",
                      edits=(Edit(start=start, end=start, text="-"),) if start is not None else ())  # fmt: skip
        elif re.fullmatch(r"-\w=", directive.written):
            start = None if place.start is None else place.start + 2
            yield Hit(place=place, severity="warning" if directive.name in _FREE else None,
                      message=f"a short option takes its value without `=`: sbatch reads {f'={value}'!r}",
                      edits=(Edit(start=start, end=start + 1, text=""),) if start is not None else ())  # fmt: skip
        elif not directive.given and directive.name in VALUES - _OPTIONAL:
            yield Hit(place=place, message=f"--{directive.name} needs a value, and sbatch refuses it without one")
        elif "$" not in value and refused(directive.name, value):
            yield Hit(place=place, message=f"{value!r} is no value for --{directive.name}")


def _one_dash(case: Case, directive: Directive) -> str | None:
    """The long option that has lost a dash: `-nodes=2` is `-n` with the value `odes=2` to sbatch."""
    written = case.script.text.split("\n")[directive.line][directive.start : directive.end]
    found = re.match(r"-([a-z][a-z-]+)(?==|$)", written)
    return found[1] if found and found[1] in FLAGS | VALUES else None


def _shebang(case: Case) -> Iterator[Hit]:
    if case.script.text.startswith(BOM) and not case.script.offset:
        yield Hit(place=case.script.line_place(0), edits=(Edit(start=0, end=1, text=""),),
                  message="a byte order mark stands in front of the `#!`: sbatch refuses the script")  # fmt: skip
        return
    if case.script.text.startswith("#!") or case.script.offset or not case.script.header.lines:
        return
    yield Hit(place=case.script.line_place(0), message="the first line is no `#!`: sbatch refuses the script",
              edits=(Edit(start=0, end=0, text="#!/bin/bash\n"),))  # fmt: skip


def _other_shell(case: Case) -> Iterator[Hit]:
    first = case.script.text.split("\n", 1)[0].removeprefix(BOM)
    if not bourne(first):
        yield Hit(place=case.script.line_place(0),
                  message=f"{first[2:].strip()!r} is no Bourne shell: only the #SBATCH lines are read")  # fmt: skip


def _nearly(case: Case) -> Iterator[Hit]:
    lines = case.script.text.split("\n")
    for number, line in enumerate(lines[:200]):
        if re.match(r"#\s+SBATCH\s+-|#(?!SBATCH)(?i:sbatch)\s+-", line):
            yield Hit(
                place=case.script.line_place(number), message="a comment to Slurm: it reads lines that begin `#SBATCH`"
            )


def _second_part(case: Case) -> Iterator[Hit]:
    line = case.script.header.hetjob
    if line is not None:
        yield Hit(
            place=case.script.line_place(line),
            message="a further component of the job begins: its options are"
            " judged, its steps where srun says --het-group",
        )


def _stray(case: Case) -> Iterator[Hit]:
    for line, word in case.script.header.strays:
        yield Hit(place=case.script.line_place(line), message=f"{word!r} belongs to no option")


def _unread(case: Case) -> Iterator[Hit]:
    for place in case.script.unread[:3] if _is_bash(case) else ():
        yield Hit(place=place, message="this could not be read as bash, so nothing is said about it")


def _is_bash(case: Case) -> bool:
    return not list(_other_shell(case))


RULES = (
    Rule(id="LM101", name="late-directive", severity="warning", title="#SBATCH below the first command",
         reason="Slurm stops reading at the first line that is neither blank nor a comment, `set -e` for one.",
         source=f"{_SLURM}; NVIDIA Megatron-Bridge PR 3068", look=_late),
    Rule(id="LM102", name="windows-line-ends", severity="error", title="Windows line ends",
         reason="sbatch refuses scripts with DOS line breaks.", source=_SLURM, look=_line_ends),
    Rule(id="LM103", name="unknown-option", severity="error", title="An option that sbatch does not have",
         reason="sbatch refuses what it does not know.", source=_SLURM, look=_unknown),
    Rule(id="LM104", name="open-quote", severity="error", title="An open quote in a directive",
         reason="sbatch reads quotes itself and refuses one that does not close.", source=_SLURM, look=_open_quote),
    Rule(id="LM105", name="variable-in-directive", severity="error", title="A shell variable in a directive",
         reason="#SBATCH lines are comments to the shell; Slurm takes their text as it is.", source=_SLURM,
         look=_variable),
    Rule(id="LM106", name="unreadable-value", severity="error", title="A value that Slurm cannot read",
         reason="sbatch refuses it, or reads something else.", source=_SLURM, look=_unreadable),
    Rule(id="LM107", name="no-shebang", severity="error", title="No `#!` in the first line",
         reason="sbatch: this does not look like a batch script.", source=_SLURM, look=_shebang),
    Rule(id="LM108", name="other-shell", severity="note", title="A script that is not for a Bourne shell",
         reason="fish, csh and Python have other words; Slurm still reads the directives.", source="lumi-moai",
         look=_other_shell),
    Rule(id="LM109", name="nearly-a-directive", severity="note", title="A line that looks like a directive and is none",
         reason="Slurm reads `#SBATCH`, in capitals and without a blank.", source=_SLURM, look=_nearly),
    Rule(id="LM110", name="second-part", severity="note", title="A heterogeneous job",
         reason="Its components have requests of their own; a step names the one that it runs in.", source=_SLURM,
         look=_second_part),
    Rule(id="LM111", name="stray-word", severity="error", title="A word that belongs to no option",
         reason="sbatch refuses such a line: `Invalid directive found in batch script`.", source=_SLURM, look=_stray),
    Rule(id="LM112", name="unread", severity="note", title="Text that could not be read",
         reason="No rule speaks of what it has not read.", source="lumi-moai", look=_unread),
)  # fmt: skip
