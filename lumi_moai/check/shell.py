"""Follows a shell script in its order and writes down its commands and variables; nothing is run.

What cannot be known becomes a hole: a variable that two branches set differently, a loop's variable, what a program
prints. A helper script is followed where its text is at hand.
"""

from collections.abc import Callable, Iterator
from typing import Any

from . import value
from .commands import Commands
from .script import Assignment, Command, Place, Variable
from .source import Source
from .words import Words

_DEEPEST = 80
_MOST_STEPS = 10_000  # a hundred times what people write


class State:
    """The variables and functions of one shell process."""

    def __init__(self, variables: dict[str, Variable], functions: dict[str, tuple[Any, Source]], seen: bool) -> None:
        self.variables, self.functions, self.seen = variables, functions, seen
        self.exports_all = False

    def copy(self) -> "State":
        """The same for a child process that is forked, as a subshell is."""
        twin = State(dict(self.variables), dict(self.functions), self.seen)
        twin.exports_all = self.exports_all
        return twin


class Shell:
    """One shell process: its text, its state, and the commands that started it."""

    def __init__(self, book: Any, source: Source, state: State, within: tuple[Command, ...], depth: int) -> None:
        self.book, self.source, self.state, self.within, self.depth = book, source, state, within, depth

    def run_all(self) -> bool:
        """Follow the whole text; whether it ended by `exit`."""
        return self.run(self.source.root)

    def child(self, source: Source, state: State | None = None, within: tuple[Command, ...] | None = None) -> "Shell":
        """A shell for another text: of the same process when it shares the state."""
        chain = self.within if within is None else within
        return Shell(self.book, source, self.state if state is None else state, chain, self.depth + 1)

    def run(self, node: Any) -> bool:
        """Follow *node*; whether the shell ends in it."""
        self.book.steps += 1
        if self.book.steps == _MOST_STEPS:
            self.book.unread.append(self.source.of(node))
        if self.depth > _DEEPEST or self.book.steps > _MOST_STEPS:
            return False
        self.depth += 1
        try:
            return _STATEMENTS.get(node.type, _each)(self, node)
        finally:
            self.depth -= 1

    def words(self) -> Words:
        """The expander of words in the present state."""
        return Words(self.source, self.state.variables, self._look_into)

    def _look_into(self, node: Any) -> None:
        before = self.state
        self.state = before.copy()
        for child in node.named_children:
            self.run(child)
        self.state = before

    def set(self, name: str, text: str, *, raw: str = "", exported: bool = False, place: Place | None = None) -> None:
        """Set a variable, and write it down when it has a place."""
        old = self.state.variables.get(name)
        exported = exported or self.state.exports_all or bool(old and old.exported)
        now = Variable(name=name, text=value.short(text), raw=raw, exported=exported, place=place)
        self.state.variables[name] = now
        if place is not None:
            self.book.assignments.append(Assignment(variable=now, place=place, within=self.within))

    def cloud(self, place: Place) -> None:
        """From here on variables may have been set unseen."""
        self.state.seen = False
        self.book.clouds.append(place)

    def branches(self, runs: list[Callable[[], bool]], *, complete: bool) -> bool:
        """Follow each way with a copy of the state and join what comes out; whether all of them end the shell."""
        before = self.state
        after = [] if complete else [before]
        for run in runs:
            self.state = before.copy()
            if not run():
                after.append(self.state)
        self.state = _joined(before, after)
        return not after


def _joined(before: State, after: list[State]) -> State:
    """One state from those of several branches: what differs is unknown."""
    if len(after) == 1:
        return after[0]
    joined = before.copy()
    for name in {name for state in after for name in state.variables}:
        found = [state.variables.get(name) for state in after]
        if len({(one.text, one.exported) if one else None for one in found}) > 1:
            exported = any(one.exported for one in found if one)
            joined.variables[name] = Variable(name=name, text=value.hole(name), exported=exported)
        elif found and found[0]:
            joined.variables[name] = found[0]
    for state in after:
        joined.functions |= state.functions
        joined.seen &= state.seen
    return joined


def _each(shell: Shell, node: Any) -> bool:
    return any(shell.run(child) for child in list(node.named_children))


def _ignore(_shell: Shell, _node: Any) -> bool:
    return False


def _error(shell: Shell, node: Any) -> bool:
    shell.book.unread.append(shell.source.of(node))
    return _each(shell, node)


def _assignment(shell: Shell, node: Any, *, exported: bool = False) -> bool:
    name = node.child_by_field_name("name")
    right = node.child_by_field_name("value")
    if name is None or name.type != "variable_name":
        return False
    words = shell.words()
    if right is not None and right.type == "array":
        text = " ".join(word.text for child in right.named_children for word in words.words(child))
    else:
        text = words.text(right) if right is not None else ""
    if any(child.type == "+=" for child in node.children):
        old = shell.state.variables.get(shell.source.raw(name))
        between = " " if right is not None and right.type == "array" and old else ""
        text = (old.text if old else "") + between + text
    raw = shell.source.raw(right) if right is not None else ""
    shell.set(shell.source.raw(name), text, raw=raw, exported=exported, place=shell.source.of(node))
    return False


def _declaration(shell: Shell, node: Any) -> bool:
    word = node.children[0].type if node.children else ""
    flags = [shell.source.raw(child) for child in node.named_children if shell.source.raw(child).startswith("-")]
    exported = word == "export" or any("x" in flag for flag in flags)
    for child in node.named_children:
        if child.type == "variable_assignment":
            _assignment(shell, child, exported=exported)
        elif child.type == "variable_name" and exported:
            _export(shell, shell.source.raw(child), child)
        elif exported and child.type in ("string", "concatenation", "simple_expansion", "expansion"):
            shell.cloud(shell.source.of(child))
    return False


def _export(shell: Shell, name: str, node: Any) -> None:
    old = shell.state.variables.get(name)
    place = old.place if old else shell.source.of(node)
    text = old.text if old else value.hole(name)
    shell.state.variables[name] = Variable(
        name=name, text=text, raw=old.raw if old else "", exported=True, place=place
    )  # fmt: skip


def _unset(shell: Shell, node: Any) -> bool:
    for child in node.named_children:
        shell.state.variables.pop(shell.source.raw(child), None)
    return False


def _pipeline(shell: Shell, node: Any) -> bool:
    """Each part is a process of its own, so what it sets is gone afterwards."""
    before = shell.state
    for child in node.named_children:
        shell.state = before.copy()
        shell.run(child)
    shell.state = before
    return False


def _list(shell: Shell, node: Any) -> bool:
    """`a && b`: b may not run."""
    first, *rest = node.named_children
    if shell.run(first):
        return True
    for child in rest:
        shell.branches([lambda child=child: shell.run(child)], complete=False)  # type: ignore[misc]
    return False


def _subshell(shell: Shell, node: Any) -> bool:
    _pipeline(shell, node) if node.named_child_count == 1 else _apart(shell, node)
    return False


def _apart(shell: Shell, node: Any) -> None:
    before = shell.state
    shell.state = before.copy()
    _each(shell, node)
    shell.state = before


def _if(shell: Shell, node: Any) -> bool:
    bodies: list[list[Any]] = [[]]
    complete = False
    seen_then = False
    for child in node.children:
        if child.type == "then":
            seen_then = True
        elif child.type in ("elif_clause", "else_clause"):
            complete = complete or child.type == "else_clause"
            bodies.append(_body(shell, child))
        elif seen_then and child.is_named:
            bodies[0].append(child)
        elif child.is_named:
            shell.run(child)
    return shell.branches([_follower(shell, body) for body in bodies], complete=complete)


def _body(shell: Shell, clause: Any) -> list[Any]:
    children = list(clause.children)
    then = next((n for n, child in enumerate(children) if child.type in ("then", "else")), 0)
    for child in children[:then]:
        if child.is_named:
            shell.run(child)
    return [child for child in children[then + 1 :] if child.is_named]


def _follower(shell: Shell, nodes: list[Any]) -> Callable[[], bool]:
    return lambda: any(shell.run(node) for node in nodes)


def _case(shell: Shell, node: Any) -> bool:
    items = [child for child in node.named_children if child.type == "case_item"]
    bodies = [list(item.named_children)[1:] for item in items]
    complete = any(shell.source.raw(item).lstrip("(").startswith("*)") for item in items)
    return shell.branches([_follower(shell, body) for body in bodies], complete=complete)


def _loop(shell: Shell, node: Any) -> bool:
    for name in _assigned(shell, node):
        old = shell.state.variables.get(name)
        shell.state.variables[name] = Variable(name=name, text=value.hole(name), exported=bool(old and old.exported))
    shell.branches([_follower(shell, list(node.named_children))], complete=False)
    return False


def _assigned(shell: Shell, node: Any) -> Iterator[str]:
    """The names that a loop sets, its own variable among them."""
    waiting = [node]
    while waiting:
        now = waiting.pop()
        if now.type in ("for_statement", "variable_assignment"):
            found = now.child_by_field_name("variable" if now.type == "for_statement" else "name")
            if found is not None:
                yield shell.source.raw(found)
        waiting.extend(now.named_children)


def _function(shell: Shell, node: Any) -> bool:
    name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
    if name is not None and body is not None:
        shell.state.functions[shell.source.raw(name)] = (body, shell.source)
        shell.book.functions.setdefault(shell.source.raw(name), (body, shell))
    return False


def _command(shell: Shell, node: Any) -> bool:
    return Commands(shell).run(node)


def _redirected(shell: Shell, node: Any) -> bool:
    return Commands(shell).run_redirected(node)


_STATEMENTS: dict[str, Callable[[Shell, Any], bool]] = {
    "comment": _ignore, "ERROR": _error, "command": _command, "redirected_statement": _redirected,
    "variable_assignment": _assignment, "declaration_command": _declaration, "unset_command": _unset,
    "pipeline": _pipeline, "list": _list, "subshell": _subshell, "if_statement": _if, "case_statement": _case,
    "for_statement": _loop, "c_style_for_statement": _loop, "while_statement": _loop, "function_definition": _function,
    "word": _ignore, "number": _ignore, "variable_name": _ignore, "test_command": _ignore, "binary_expression": _ignore,
}  # fmt: skip
