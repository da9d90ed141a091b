"""A function of the script: what its statements bind names to, and in which of its loops it fetches its batches."""

import ast
import functools
import inspect
from types import FrameType

from . import users
from .source import filled, given_to, set_name, source_of

_LOOPS: dict[str, set[int]] = {}
"""On which lines of which files the script fetches its batches."""
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def note_loop(frame: FrameType | None) -> None:
    """The script fetches a batch in *frame*, or in one that called it."""
    while frame is not None:
        if users.is_scripts(frame):
            _LOOPS.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
            if not frame.f_code.co_flags & inspect.CO_GENERATOR:
                return  # what a generator of the script's yields is for its caller
        frame = frame.f_back


class Scope:
    """The function that is at work in *frame*, and the expression in it that is."""

    def __init__(self, frame: FrameType) -> None:
        self.frame = frame
        self.source = source_of(frame.f_code.co_filename)
        place = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        node = self.source.of_place.get(place)
        self.node = node.iter if isinstance(node, ast.For) else node
        self.scope = self.function_of(self.node) or self.source.tree
        """The function, or all of the file."""

    def is_others(self, name: ast.Name) -> bool:
        """Whether *name* is one of a function within the scope, which has its own of that name."""
        function = self.function_of(name)
        if function is None or function is self.scope:
            return False
        names = (each.arg if isinstance(each, ast.arg) else set_name(each) for each in ast.walk(function))
        return name.id in names

    def is_same(self, use: ast.Name, binder: ast.AST | None) -> bool:
        """Whether *use* is of the name that *binder* binds, a loop within a batch; None for other statements."""
        found = self.binder_of(use)
        end = (binder.end_lineno or binder.lineno) if isinstance(binder, ast.For) else use.lineno
        if found is binder or found is not None or use.lineno <= end:
            return found is binder
        return not any(self.is_in_block_of(use, each) for each, _ in self.given(use, end + 1))

    def binder_of(self, name: ast.Name) -> ast.AST | None:
        """The loop within a batch, or the comprehension, that gives *name* what it stands for; None for neither."""
        node: ast.AST = name
        while (parent := self.source.parents.get(node)) is not None and not isinstance(parent, _FUNCTION):
            is_loop = isinstance(parent, ast.For) and node is not parent.iter and parent not in self.loops
            loops = parent.generators if isinstance(parent, _COMPREHENSIONS) else [parent] if is_loop else []
            if any(name.id == set_name(each) for loop in loops for each in ast.walk(loop.target)):  # type: ignore[attr-defined]
                return parent
            node = parent
        return None

    def values_of(self, name: str) -> list[ast.expr]:
        """The expressions that give *name* its values in the scope, and the loops that go through some for it."""
        through = [
            each.iter
            for each in ast.walk(self.scope)
            if isinstance(each, ast.For) and name in map(set_name, ast.walk(each.target))
        ]
        return through + [
            each.value
            for each in ast.walk(self.scope)
            if isinstance(each, (ast.Assign, ast.AugAssign))
            for target in (each.targets if isinstance(each, ast.Assign) else [each.target])
            if name in map(set_name, ast.walk(target))
        ]

    def filled_in(self, name: str) -> list[ast.expr]:
        """What the loops go through, within a batch, that add to *name*."""
        return [
            loop.iter
            for loop in ast.walk(self.scope)
            if isinstance(loop, ast.For) and loop not in self.loops and name in map(filled, ast.walk(loop))
        ]

    def filled_with(self, name: str) -> list[ast.expr]:
        """What is added to *name* by methods such as `append`."""
        return [word for each in ast.walk(self.scope) if filled(each) == name for word in each.args]  # type: ignore[attr-defined]

    def gone_through(self, name: str) -> list[ast.expr]:
        """What the script goes through for the entries of the list *name*."""
        comprehensions = [
            each for value in self.values_of(name) for each in ast.walk(value) if isinstance(each, ast.comprehension)
        ]
        return [*(each.iter for each in comprehensions), *self.filled_in(name)]

    def is_made_anew(self, name: ast.Name) -> bool:
        """Whether each batch has a value of its own under *name*."""
        loops = self.loops
        return any(
            set_name(each) == name.id and self._is_set(each) for each in ast.walk(loops[-1] if loops else self.scope)
        )

    @functools.cached_property
    def loops(self) -> list[ast.AST]:
        """Those of the scope in which the script fetches its batches, the innermost last."""
        lines = _LOOPS.get(self.frame.f_code.co_filename, set())
        return [
            each
            for each in ast.walk(self.scope)
            if isinstance(each, (ast.For, ast.While))
            and any(each.lineno <= line <= (each.end_lineno or line) for line in lines)
            and (self.function_of(each) or self.source.tree) is self.scope
        ]

    def _is_set(self, name: ast.AST) -> bool:
        """Whether *name* gets a value there that has nothing to do with what it was."""
        statement = self.statement_of(name)
        if isinstance(statement, ast.Assign):
            return not any(
                isinstance(each, ast.Name) and each.id == set_name(name) for each in ast.walk(statement.value)
            )
        return not isinstance(statement, ast.AugAssign)

    def given(self, name: ast.Name, first: int) -> list[tuple[ast.Assign, ast.expr]]:
        """The statements from line *first* to ahead of *name* that give it something, and what."""
        return [
            (each, value)
            for each in ast.walk(self.scope)
            if isinstance(each, ast.Assign) and first <= each.lineno < name.lineno
            for value in given_to(name.id, each)
        ]

    def is_in_block_of(self, node: ast.AST | None, statement: ast.stmt) -> bool:
        """Whether *node* is behind *statement* wherever that is."""
        block = self.source.parents.get(statement)
        while node is not None and node is not block:
            node = self.source.parents.get(node)
        return node is not None

    def statement_of(self, node: ast.AST | None) -> ast.stmt | None:
        """The statement in which *node* stands."""
        while node is not None and not isinstance(node, ast.stmt):
            node = self.source.parents.get(node)
        return node

    def function_of(self, node: ast.AST | None) -> ast.AST | None:
        """The innermost function in which *node* stands; None for the file itself."""
        while node is not None and not isinstance(node, _FUNCTION):
            node = self.source.parents.get(node)
        return node
