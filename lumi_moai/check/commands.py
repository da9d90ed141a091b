"""What a command does to the shell, and which programs it starts: builtins, wrappers, containers, helper scripts."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from . import programs, value
from .script import Absent, Assignment, Command, Place, Variable, Word
from .source import Source

_ACTIVATE = re.compile(r"(^|/)(bin/activate|etc/profile(\.d/\w+\.sh)?|\.bashrc|conda\.sh)$")
_MODULES = frozenset(("module", "ml", "conda", "mamba", "spack"))
_SYSTEM = ("/bin/", "/usr/", "/opt/", "/sbin/")
_TASK_VARIABLES = ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_CPUS_PER_TASK", "SLURM_NNODES")


class Commands:
    """Runs the command nodes of a shell (`shell.Shell`)."""

    def __init__(self, shell: Any) -> None:
        self.shell = shell
        self.input: Source | None = None

    def run(self, node: Any) -> bool:
        """Follow a command node; whether it ends the shell."""
        shell, expander = self.shell, self.shell.words()
        pairs: list[Variable] = []
        found: list[Word] = []
        end = -1
        for child in node.children:
            if child.type == "variable_assignment":
                pairs.append(self._pair(child, expander))
            elif child.type == "herestring_redirect":
                self.input = next(
                    (self._text(word) for one in child.named_children for word in expander.words(one)), None
                )
            elif child.is_named and child.type not in ("file_redirect", "heredoc_redirect"):
                torn = child.start_byte == end and found  # one word to bash, two to the parser
                found.extend(expander.words(child) if not torn else [])
                if torn:
                    found[-1] = replace(found[-1], text=value.hole("unread"))
            end = child.end_byte
        if not found:
            for one in pairs:
                shell.set(one.name, one.text, raw=one.raw, place=one.place)
            return False
        return self.start(found, shell.source.of(node), pairs)

    def _pair(self, node: Any, expander: Any) -> Variable:
        """A variable that stands in front of a command."""
        right, source = node.child_by_field_name("value"), self.shell.source
        return Variable(
            name=source.raw(node.child_by_field_name("name")), text=expander.text(right) if right is not None else "",
            raw=source.raw(right) if right is not None else "", exported=True, place=source.of(node),
        )  # fmt: skip

    def run_redirected(self, node: Any) -> bool:
        """Follow a command with redirections: a here-document is a file that is made, or the input of a shell."""
        shell = self.shell
        body = node.child_by_field_name("body")
        here = next((child for child in node.children if child.type == "heredoc_redirect"), None)
        if here is None:
            return shell.run(body) if body is not None else False
        text = self._document(here)
        target = _target(node)
        self.input = text
        if target is not None and text is not None:
            names = shell.words().words(target)
            shell.book.make(names[0].text if names else "", text)
        if body is not None and body.type == "command":
            return self.run(body)
        return shell.run(body) if body is not None else False

    def _document(self, here: Any) -> Source | None:
        """The text of a here-document, expanded unless its mark is quoted."""
        source = self.shell.source
        body = next((child for child in here.children if child.type == "heredoc_body"), None)
        start = next((child for child in here.children if child.type == "heredoc_start"), None)
        if body is None or start is None:
            return None
        text = raw = source.raw(body)
        quoted = source.raw(start)[:1] in "'\"\\"
        if not quoted:
            pieces = self.shell.words().parts(body, _here_text, body.start_byte, body.end_byte)
            text = "".join(text for text, _ in pieces)
        if any(child.type == "<<-" for child in here.children):
            text = re.sub(r"(?m)^\t+", "", text)
        return source.inner(body, 0, text, exact=quoted and text == raw)

    def start(self, words: list[Word], place: Place, given: list[Variable], own: tuple[str, ...] = ()) -> bool:
        """Start the program in *words* with the variables *given* for it alone; whether the shell ends."""
        shell = self.shell
        name = words[0].shown
        if name == "srun" and (parts := _side_by_side(words)):
            return any([self.start(part, place, given, own) for part in parts])
        builtin = _BUILTINS.get(name)
        if name in shell.state.functions:
            return self._call(name, words)
        before = shell.state
        if given:
            shell.state = before.copy()
            shell.state.variables |= {one.name: one for one in given}
            shell.book.assignments += [
                Assignment(variable=one, place=one.place, within=shell.within) for one in given if one.place
            ]
        command = Command(
            words=tuple(words), place=place, variables=shell.book.frozen(shell.state.variables), within=shell.within,
            own=(*own, *(one.name for one in given)), seen=shell.state.seen,
        )  # fmt: skip
        shell.book.commands.append(command)
        ended = builtin(self, words, place) if builtin else self._opens(command, words)
        if given:
            shell.state = before
        return ended

    def _call(self, name: str, words: list[Word]) -> bool:
        shell = self.shell
        body, source = shell.state.functions[name]
        shell.book.called.add(name)
        if name in shell.book.open:
            return False  # it calls itself
        shell.book.open.add(name)
        for number, word in enumerate(words[1:], 1):
            shell.state.variables[str(number)] = Variable(name=str(number), text=word.text)
        everything = " ".join(word.text for word in words[1:])
        shell.state.variables |= {mark: Variable(name=mark, text=everything) for mark in "@*"}
        inside = shell.child(source)
        inside.run(body)
        shell.state = inside.state
        shell.book.open.discard(name)
        return False

    def _opens(self, command: Command, words: list[Word]) -> bool:
        """Follow what *command* starts in its turn; whether it takes the shell's place."""
        texts = [word.text for word in words]
        name = command.name
        found = programs.opened(texts)
        if found and found.at < len(words):
            self._next(command, words[found.at :], found.sets)
        elif name in programs.SHELLS:
            self._shell(command, words, texts)
        elif name == "sbatch" and self.input is not None:
            self.shell.book.inner.append(self.input)
        elif not found:
            self._helper(command, words[0], words[1:])
        return name == "exec" and found is not None and found.at < len(words)  # without one it only redirects

    def _next(self, command: Command, words: list[Word], sets: Sequence[tuple[str, str]]) -> None:
        shell = self.shell
        state = _exported(shell.state)
        if command.name == "srun":
            for name in _TASK_VARIABLES:
                if name in state.variables:
                    state.variables[name] = Variable(name=name, text=value.hole(name), exported=True)
        if command.name in programs.CONTAINERS:
            for name in [name for name in state.variables if name.startswith(programs.FOR_INSIDE)]:
                given = name.partition("_")[2]
                state.variables[given] = replace(state.variables[name], name=given)
        inside = shell.child(shell.source, state, (*shell.within, command))
        follower = Commands(inside)
        follower.input = self.input
        place = replace(command.place, start=None, end=None)  # of no word of its own
        given = [Variable(name=name, text=text, exported=True, place=place) for name, text in sets]
        follower.start(words, command.place, given, command.own)

    def _shell(self, command: Command, words: list[Word], texts: list[str]) -> None:
        if (at := programs.shell_text(texts)) is not None:
            self._follow(command, self._text(words[at]), words[at + 2 :])  # the first word behind the text is $0
        elif (at := programs.shell_file(texts)) is not None:
            self._helper(command, words[at], words[at + 1 :], asked=True)
        elif self.input is not None:
            self._follow(command, self.input, [])

    def _text(self, word: Word) -> Source:
        """The text of `bash -c`, in place where single quotes keep every character."""
        raw, place = word.raw, word.place
        if raw[:1] == "'" and raw[1:-1] == word.text and place.start is not None:
            book = self.shell.book
            return Source(place.path, word.text, whole=book.texts.get(place.path, ""), base=place.start + 1)
        return Source(place.path, word.text, around=place)

    def _follow(self, command: Command, source: Source, arguments: list[Word], *, shared: bool = False) -> None:
        """Run another text: in this process when *shared* (`source`), else in a new one."""
        shell = self.shell
        state = shell.state if shared else _exported(shell.state)
        for number, word in enumerate(arguments, 1):
            state.variables[str(number)] = Variable(name=str(number), text=word.text)
        if arguments:
            everything = " ".join(word.text for word in arguments)
            state.variables |= {mark: Variable(name=mark, text=everything) for mark in "@*"}
        mark = (source.path, source.text)
        if mark in shell.book.open:
            return  # it starts itself
        shell.book.open.add(mark)
        inside = shell.child(source, state, shell.within if shared else (*shell.within, command))
        inside.run_all()
        shell.book.open.discard(mark)
        if shared:
            shell.state = inside.state

    def _helper(self, command: Command, word: Word, arguments: list[Word], *, asked: bool = False) -> None:
        """A script of the user's own: followed where it is at hand, else named."""
        path = word.text
        if not (asked or _may_be_script(path)):
            return
        source = self.shell.book.find(path)
        if source is not None:
            self._follow(command, source, arguments)
        elif asked or not path.endswith(".py"):
            self.shell.book.absent.append(
                Absent(path=value.shown(path), place=word.place, sourced=False, within=(*self.shell.within, command))
            )

    def source_file(self, words: list[Word], place: Place) -> bool:
        """`source FILE`."""
        if len(words) < 2:
            return False
        source = self.shell.book.find(words[1].text)
        if source is not None:
            self._follow(self.shell.book.commands[-1], source, words[2:], shared=True)
        elif not _ACTIVATE.search(words[1].text):
            shown = words[1].shown
            self.shell.book.absent.append(
                Absent(path=shown, place=words[1].place, sourced=True, within=self.shell.within)
            )
            self.shell.cloud(place)
        return False

    def cloud(self, words: list[Word], place: Place) -> bool:
        """Something that may set variables: modules, environments."""
        if words[1:2] and words[1].text in ("purge", "list", "use", "run", "av", "avail"):
            if words[0].text in ("conda", "mamba"):
                self._opens(self.shell.book.commands[-1], words)
            return False
        self.shell.cloud(place)
        return False

    def evaluate(self, words: list[Word], place: Place) -> bool:
        """`eval TEXT`."""
        text = " ".join(word.text for word in words[1:])
        if not value.known(text):
            self.shell.cloud(place)
        self._follow(self.shell.book.commands[-1], Source(place.path, text, around=place), [], shared=True)
        return False

    def read_in(self, words: list[Word], _place: Place) -> bool:
        """`read NAME...`."""
        for word in words[1:]:
            if re.fullmatch(r"[A-Za-z_]\w*", word.text):
                self.shell.state.variables[word.text] = Variable(name=word.text, text=value.hole(word.text))
        return False

    def options_on(self, words: list[Word], _place: Place) -> bool:
        """`set -a` exports all that follows."""
        flags = " ".join(word.text for word in words[1:])
        if re.search(r"(^|\s)-\w*a|-o allexport", flags):
            self.shell.state.exports_all = True
        if re.search(r"(^|\s)\+\w*a|\+o allexport", flags):
            self.shell.state.exports_all = False
        return False

    def on_signal(self, words: list[Word], place: Place) -> bool:
        """`trap TEXT SIGNAL`: the text may run."""
        if len(words) > 2:
            child = self.shell.child(Source(place.path, words[1].text, around=place), self.shell.state.copy())
            child.run_all()
        return False

    def nothing(self, _words: list[Word], _place: Place) -> bool:
        """A builtin that changes nothing here."""
        return False

    def leave(self, _words: list[Word], _place: Place) -> bool:
        """`exit` ends the shell."""
        return True


def _side_by_side(words: list[Word]) -> list[list[Word]]:
    """The steps of `srun A : B`, each as an srun of its own that names its component; none where there is one only."""
    bounds = [at for at, word in enumerate(words) if word.raw == ":"]
    parts = [words[begin + 1 : end] for begin, end in pairwise([0, *bounds, len(words)])] if bounds else []
    named = []
    for number, part in enumerate(parts):
        given = any(word.text.startswith(("--het-group", "--pack-group")) for word in part)
        own = [] if given else [replace(words[0], text=f"--het-group={number}")]
        named.append([words[0], *own, *part])
    return named


def _exported(state: Any) -> Any:
    child = state.copy()
    child.variables = {name: found for name, found in state.variables.items() if found.exported}
    return child


def _here_text(text: str) -> str:
    return re.sub(r"\\([$`\\\n])", lambda match: "" if match[1] == "\n" else match[1], text)


def _target(node: Any) -> Any:
    """The node of the file that a redirection writes to."""
    waiting = list(node.children)
    while waiting:
        now = waiting.pop(0)
        if now.type == "file_redirect" and any(child.type in (">", ">>", ">|") for child in now.children):
            return now.child_by_field_name("destination")
        if now.type in ("heredoc_redirect", "redirected_statement"):
            waiting.extend(now.children)
    return None


def _may_be_script(path: str) -> bool:
    if path.startswith(_SYSTEM) or "://" in path or path.endswith((".py", ".sif", ".jl", ".R", ".pl")):
        return False
    return path.endswith((".sh", ".bash", ".slurm", ".sbatch")) or "/" in path


_BUILTINS: dict[str, Callable[[Commands, list[Word], Place], bool]] = {
    "source": Commands.source_file, ".": Commands.source_file, "eval": Commands.evaluate, "read": Commands.read_in,
    "mapfile": Commands.read_in, "readarray": Commands.read_in, "set": Commands.options_on, "trap": Commands.on_signal,
    "exit": Commands.leave, "return": Commands.leave, "echo": Commands.nothing, "printf": Commands.nothing,
    "cd": Commands.nothing, "mkdir": Commands.nothing, "test": Commands.nothing, "[": Commands.nothing,
    **dict.fromkeys(_MODULES, Commands.cloud),
}  # fmt: skip
