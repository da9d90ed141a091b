"""Reads a batch script into a `Script`: its directives, then its shell text, followed from its first line on."""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..sbatch import Asked, asked_of, header
from ..sbatch.asked import BOM
from . import value
from .script import Absent, Assignment, Command, Place, Script, Variable
from .shell import Shell, State
from .source import Source

Files = Callable[[str], str | None]
_MOST_FILES = 40


class Book:
    """What is written down while a script is followed. `files` gives the text of a helper script, or None."""

    def __init__(self, path: str, text: str, files: Files) -> None:
        self.path, self._files = path, files
        self.texts = {path: text}
        self.commands: list[Command] = []
        self.assignments: list[Assignment] = []
        self.absent: list[Absent] = []
        self.clouds: list[Place] = []
        self.unread: list[Place] = []
        self.inner: list[Source] = []
        self.called: set[str] = set()
        self.open: set[object] = set()
        self.steps = 0
        self.functions: dict[str, tuple[Any, Shell]] = {}
        self._made: dict[str, Source] = {}
        self._frozen: tuple[int, dict[str, Variable]] = (0, {})

    def make(self, path: str, source: Source) -> None:
        """The script writes *source* to *path*."""
        name = _normal(path)
        if name in self._made:
            source = Source(source.path, self._made[name].text + source.text, around=self._made[name].around)
        self._made[name] = source

    def find(self, path: str) -> Source | None:
        """The text behind *path*: one that this script writes, or a file at hand that is a shell script."""
        name = _normal(path)
        if name in self._made:
            return self._made[name]
        if not value.known(name) or len(self.texts) > _MOST_FILES:
            return None
        text = self.texts.get(name) or self._files(name)
        if text is None or not _is_shell(name, text):
            return None
        self.texts[name] = value.cleaned(text)
        return Source(name, self.texts[name])

    def frozen(self, variables: dict[str, Variable]) -> Mapping[str, Variable]:
        """A copy of *variables*; the last one again while nothing has changed."""
        if variables != self._frozen[1]:
            self._frozen = (0, dict(variables))
        return self._frozen[1]

    def made_scripts(self) -> list[Source]:
        """Batch scripts among the files that the script writes."""
        made = [source for source in self._made.values() if "\n#SBATCH" in source.text[:20_000]]
        return [*self.inner, *made]


def _normal(path: str) -> str:
    """A path without `./`, and without a folder that only the run knows in front."""
    for folder in ("PWD", "SLURM_SUBMIT_DIR", "wd", "(pwd)"):
        path = path.removeprefix(f"{value.hole(folder)}/")
    while path.startswith("./"):
        path = path[2:]
    return path


def bourne(text: str) -> bool:
    """Whether the first line names no interpreter that is no Bourne shell."""
    first = text.removeprefix(BOM).split("\n", 1)[0]
    return not first.startswith("#!") or re.search(r"\b(ba|da|z|k)?sh\b", first) is not None


def _is_shell(name: str, text: str) -> bool:
    first = text[:200].split("\n", 1)[0]
    return ("sh" in first) if first.startswith("#!") else name.endswith((".sh", ".bash", ".slurm", ".sbatch"))


def read(text: str, path: str = "script", files: Files = lambda _path: None) -> Script:
    """*text* as a `Script`; *files* gives the text of a helper script by the path that the script calls it by, or None.

    Any text gives a Script: what cannot be understood is in `unread`.
    """
    return _read(value.cleaned(text), path, files, inner=False)


def _read(
    text: str, path: str, files: Files, *, inner: bool, offset: int = 0, base: int | None = 0, whole: str = ""
) -> Script:
    found = header(text)
    asked = asked_of(found, text) if found.lines else Asked()
    book = Book(path, text, files)
    around = None
    if base is None:
        around = Place(path=path, line=offset + 1, column=1, end_line=offset + text.count("\n") + 1, end_column=1)
    shell = Shell(
        book,
        Source(path, text, whole=whole, base=base or 0, around=around),
        State(_given(found, asked), {}, seen=True),
        (),
        0,
    )
    if bourne(text):
        shell.run_all()
        _follow_uncalled(book)
    comments = _comments(shell.source.root) if found.late else ()
    made = [] if inner else book.made_scripts()
    return Script(
        path=path, text=text, header=found, asked=asked, commands=tuple(book.commands),
        assignments=tuple(book.assignments), absent=tuple(_once(book.absent)), clouds=tuple(book.clouds),
        unread=tuple(dict.fromkeys(book.unread)), comments=frozenset(comments), offset=offset, base=base, whole=whole,
        inner=tuple(_read_inner(source, path, files) for source in made),
    )  # fmt: skip


def _read_inner(source: Source, path: str, files: Files) -> Script:
    place = source.around or source.place(0, 0)
    text, offset = value.shown(source.text), place.line - 1
    if source.around is None and source.path == path:
        return _read(text, path, files, inner=True, offset=offset, base=source.base, whole=source.whole)
    return _read(text, path, files, inner=True, offset=offset, base=None)


def _comments(root: Any) -> Iterator[int]:
    """The lines of the comments in a tree."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.type == "comment":
            yield node.start_point[0]
        waiting.extend(node.children)


def _follow_uncalled(book: Book) -> None:
    """Functions that nobody was seen to call may still run: as a trap, in another script."""
    for name, (body, shell) in list(book.functions.items()):
        if name not in book.called:
            Shell(book, shell.source, shell.state.copy(), shell.within, shell.depth + 1).run(body)


def _once(found: list[Absent]) -> list[Absent]:
    return list({(one.path, one.sourced): one for one in reversed(found)}.values())[::-1]


def _given(found: Any, asked: Asked) -> dict[str, Variable]:
    """Slurm's own variables, as far as the directives fix them."""
    raw = {directive.name: directive.value for directive in found.directives}
    nodes = asked.nodes if raw.get("nodes", "").isdigit() else None
    tasks = asked.ntasks or (nodes * asked.tasks_per_node if nodes and asked.tasks_per_node else None)
    values = {
        "SLURM_NNODES": nodes,
        "SLURM_JOB_NUM_NODES": nodes,
        "SLURM_NTASKS": tasks,
        "SLURM_NPROCS": tasks,
        "SLURM_NTASKS_PER_NODE": asked.tasks_per_node,
        "SLURM_CPUS_PER_TASK": asked.cpus_per_task,
        "SLURM_GPUS_ON_NODE": asked.devices_per_node,
        "SLURM_GPUS_PER_NODE": raw.get("gpus-per-node"),
        "SLURM_JOB_PARTITION": asked.partition,
    }
    return {name: Variable(name=name, text=str(text), exported=True) for name, text in values.items() if text}
