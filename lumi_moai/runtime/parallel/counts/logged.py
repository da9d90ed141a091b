"""Whether the rows that a script reads ahead of `backward()` go into what it keeps, counts or prints, and into no loss.

`said.extend(p.tolist())`, `hits += (p.numpy() == y.numpy()).sum()` and `print(y.tolist())` mean all rows of the batch,
as one device has them. `weights = table[y.numpy()]` may be for the loss of this rank's rows. The script's source tells
them apart: what is dropped or added up, has passed through nothing but Python's and numpy's functions, and under no
name goes elsewhere, enters no loss. What cannot be followed is taken for a loss's.
"""

import ast
import builtins
import functools
import inspect
import linecache
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType, ModuleType
from typing import Any

import torch

from . import users

_COUNTING = {
    "builtins",
    "collections",
    "itertools",
    "json",
    "math",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "statistics",
}
"""Packages whose functions give what a log needs, and no tensors."""
_OURS = __name__.partition(".")[0]
"""Whose `sum` and `range` stand for Python's."""
_KEEPING = {
    *(
        "append",
        "appendleft",
        "extend",
        "insert",
        "update",
        "add",
        "at",
        "push",
        "put",
        "store",
        "record",
        "accumulate",
    ),
    *("write", "writelines", "writerow", "writerows", "info", "debug", "log", "print", "add_scalar", "add_scalars"),
    *("add_batch", "set_postfix", "set_postfix_str", "set_description"),
}
"""Methods that are called for what they keep or print."""
_UNFIT = (ast.Lambda, ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr)
_KNOWN: dict[tuple, bool] = {}
_NUMBERS = {"numpy", "tolist", "item"}
"""Methods of a tensor that give Python's or numpy's numbers."""
_READ = {"numpy", "tolist"}
"""Those that give as many as there are rows."""
_LOOPS: dict[str, set[int]] = {}
"""On which lines of which files the script fetches its batches."""
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The source of a file."""

    tree: ast.Module
    parents: dict[ast.AST, ast.AST]
    of_place: dict[Any, ast.AST]
    """Expressions, and statements that add, by where they stand."""


def note_loop(frame: FrameType | None) -> None:
    """The script fetches a batch in *frame*, or in one that called it."""
    while frame is not None:
        if users.is_scripts(frame):
            _LOOPS.setdefault(frame.f_code.co_filename, set()).add(frame.f_lineno)
            if not frame.f_code.co_flags & inspect.CO_GENERATOR:
                return  # what a generator of the script's yields is for its caller
        frame = frame.f_back


def is_for_log() -> bool:
    """Whether what the script asks of rows now is only kept, counted or printed, until the next batch."""
    frame = in_loop()
    if frame is None:
        return False
    key = (frame.f_code, frame.f_lasti, *_callers(frame.f_back))
    if key not in _KNOWN:
        _KNOWN[key] = _Flow(frame).is_kept()
    return _KNOWN[key]


def in_loop() -> FrameType | None:
    """The frame of the script that asks for rows now; none within the forward of a model, where they are plain."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not users.is_scripts(frame):
        frame = frame.f_back
    return frame if frame is not None and users.asks_in_loop(frame) else None


def _callers(frame: FrameType | None) -> Iterator[tuple[CodeType, int]]:
    """Where the script's functions are at work, from *frame* up."""
    while frame is not None and users.is_scripts(frame):
        yield frame.f_code, frame.f_lasti
        frame = frame.f_back


class _Flow:
    """Follows what is asked in *frame* through the statements of its function, and of those that called it."""

    def __init__(self, frame: FrameType) -> None:
        self.frame = frame
        self.source = _source(frame.f_code.co_filename)
        place = list(frame.f_code.co_positions())[frame.f_lasti // 2]
        self.node = self.source.of_place.get(place)
        self.scope = self._function_of(self.node) or self.source.tree
        """The function that is at work, or all of the file."""
        self._found: dict[str, bool] = {}
        """Of names, whether their uses lead to nothing but logs."""
        self._of_rows: dict[str, bool] = {}
        self._guessed: set[str] = set()
        """Names without a value as yet, of which what they will be given was looked at."""

    def is_kept(self) -> bool:
        """Whether what is asked now leads to nothing but logs."""
        if isinstance(self.node, ast.AugAssign):  # `names += batch["name"]`, which asks as it adds
            return self._grows(self.node)
        return self.node is not None and self._leads(self.node)

    def _leads(self, node: ast.AST) -> bool:
        """Whether the value of the expression *node* does so."""
        while (parent := self.source.parents.get(node)) is not None and not isinstance(parent, _UNFIT):
            if isinstance(parent, ast.stmt):
                return self._ends(node, parent)
            is_argument = isinstance(parent, ast.Call) and node is not parent.func
            is_last = isinstance(self.source.parents.get(parent), ast.Expr)
            if is_argument and not is_last and not _counts(parent.func, self.frame):  # type: ignore[attr-defined]
                return False
            if not self._is_beside_numbers(node, parent):
                return False
            node = parent
        return False

    def _ends(self, node: ast.AST, statement: ast.stmt) -> bool:
        """Whether *statement*, which begins with the value of *node*, only keeps it, or what it names is only kept."""
        if isinstance(statement, ast.Expr):
            is_kept = isinstance(node, ast.Call) and self._keeps(node.func)
        elif isinstance(statement, (ast.If, ast.While, ast.Assert)):
            is_kept = True  # a choice is made by all rows
        elif isinstance(statement, ast.Return):
            above = self.frame.f_back
            is_own = self._function_of(statement) is self.scope and not self._loops()
            is_kept = is_own and above is not None and users.is_scripts(above) and _Flow(above).is_kept()
        elif isinstance(statement, ast.AugAssign):
            is_kept = self._grows(statement)
        else:
            is_kept = isinstance(statement, ast.Assign) and (
                self._grows(statement) or all(map(self._is_named_for_log, statement.targets))
            )
        return is_kept and self._goes_with_logs(node if isinstance(statement, (ast.If, ast.While)) else statement)

    def _goes_with_logs(self, together: ast.AST) -> bool:
        """Whether all else in *together* that was made of rows leads to logs: it would have other rows than this."""
        names = {each.id: each for each in ast.walk(together) if isinstance(each, ast.Name)}
        names = {name: each for name, each in names.items() if self._is_made_anew(each) and self._names_numbers(each)}
        of_rows = filter(self._is_of_rows, names)
        return all(map(self._uses_lead, of_rows))

    def _is_of_rows(self, name: str) -> bool:
        """Whether *name* stands for numbers that the script has made of rows."""
        if name not in self._of_rows:
            self._of_rows[name] = False
            self._of_rows[name] = self._is_made_row_by_row(name) or any(map(self._makes_of_rows, self._values(name)))
        return self._of_rows[name]

    def _is_made_row_by_row(self, name: str) -> bool:
        """Whether *name* is a list of what the script computes in a loop over rows, which is over this rank's."""
        iterated = [
            each.iter for value in self._values(name) for each in ast.walk(value) if isinstance(each, ast.comprehension)
        ]
        iterated += [
            loop.iter
            for loop in ast.walk(self.scope)
            if isinstance(loop, ast.For) and loop not in self._loops() and name in map(_filled, ast.walk(loop))
        ]
        return not all(map(self._is_numbers, iterated))

    def _makes_of_rows(self, value: ast.expr) -> bool:
        for each in ast.walk(value):
            if isinstance(each, ast.Attribute) and each.attr in _READ:
                return True
            if isinstance(each, ast.Call) and users.is_by_user(_value(each.func, self.frame)):
                return True
            is_plain = isinstance(each, ast.Name) and not isinstance(_value(each, self.frame), torch.Tensor)
            if is_plain and self._is_of_rows(each.id):  # type: ignore[attr-defined]
                return True
        return False

    def _values(self, name: str) -> list[ast.expr]:
        """The expressions that give *name* its values in the scope."""
        return [
            each.value
            for each in ast.walk(self.scope)
            if isinstance(each, (ast.Assign, ast.AugAssign))
            for target in (each.targets if isinstance(each, ast.Assign) else [each.target])
            if name in map(_set_name, ast.walk(target))
        ]

    def _is_named_for_log(self, target: ast.expr) -> bool:
        """Whether all uses of what *target* names lead to logs."""
        if isinstance(target, (ast.Tuple, ast.List)):
            return all(map(self._is_named_for_log, target.elts))
        if isinstance(target, ast.Subscript):  # `said[k] = ...`
            return self._is_numbers(target.value) and self._outlasts(target.value)
        return isinstance(target, ast.Name) and self._uses_lead(target.id)

    def _uses_lead(self, name: str) -> bool:
        if name not in self._found:
            self._found[name] = True  # as long as nothing else is found
            self._found[name] = self._do_uses_lead(name)
        return self._found[name]

    def _do_uses_lead(self, name: str) -> bool:
        if self._is_made_row_by_row(name):
            return False
        if any(isinstance(each, (ast.Global, ast.Nonlocal)) and name in each.names for each in ast.walk(self.scope)):
            return False
        uses = [each for each in ast.walk(self.scope) if isinstance(each, ast.Name) and each.id == name]
        return all(self._leads(each) for each in uses if isinstance(each.ctx, ast.Load) and not self._is_others(each))

    def _is_others(self, name: ast.Name) -> bool:
        """Whether *name* is one of a function within the scope, which has its own of that name."""
        function = self._function_of(name)
        if function is None or function is self.scope:
            return False
        names = (each.arg if isinstance(each, ast.arg) else _set_name(each) for each in ast.walk(function))
        return name.id in names

    def _keeps(self, called: ast.expr) -> bool:
        """Whether *called*, whose result the script drops, is called for what it keeps or prints."""
        if not isinstance(called, ast.Attribute):
            return _counts(called, self.frame)
        held = _value(called.value, self.frame)
        if called.attr not in _KEEPING or isinstance(held, (torch.Tensor, torch.nn.Module)):
            return False
        return isinstance(held, ModuleType) or self._outlasts(called.value)

    def _grows(self, statement: ast.AugAssign | ast.Assign) -> bool:
        """Whether *statement* adds to something of the script's: `hits += ...`, `said = np.append(said, ...)`."""
        if isinstance(statement, ast.AugAssign):
            held = _value(statement.target, self.frame)
            return not isinstance(held, torch.Tensor) and self._outlasts(statement.target)
        first, *others = statement.targets
        own = first.id if isinstance(first, ast.Name) and not others else ""
        grows = any(isinstance(each, ast.Name) and each.id == own for each in ast.walk(statement.value))
        return grows and self._outlasts(first)

    def _outlasts(self, held: ast.expr) -> bool:
        """Whether *held*, to which something is added, is there for more than this batch, or only logged after all."""
        while isinstance(held, (ast.Subscript, ast.Attribute)):
            if isinstance(held, ast.Attribute):
                return True
            held = held.value
        if not isinstance(held, ast.Name):
            return True
        return not self._is_made_anew(held) or self._uses_lead(held.id)

    def _is_made_anew(self, name: ast.Name) -> bool:
        """Whether each batch has a value of its own under *name*."""
        loops = self._loops()
        return any(
            _set_name(each) == name.id and self._is_set(each) for each in ast.walk(loops[-1] if loops else self.scope)
        )

    def _loops(self) -> list[ast.AST]:
        """Those of the scope in which the script fetches its batches, the innermost last."""
        lines = _LOOPS.get(self.frame.f_code.co_filename, set())
        return [
            each
            for each in ast.walk(self.scope)
            if isinstance(each, (ast.For, ast.While))
            and any(each.lineno <= line <= (each.end_lineno or line) for line in lines)
            and (self._function_of(each) or self.source.tree) is self.scope
        ]

    def _is_set(self, name: ast.AST) -> bool:
        """Whether *name* gets a value there that has nothing to do with what it was."""
        statement: ast.AST | None = name
        while statement is not None and not isinstance(statement, ast.stmt):
            statement = self.source.parents.get(statement)
        if isinstance(statement, ast.Assign):
            return not any(
                isinstance(each, ast.Name) and each.id == _set_name(name) for each in ast.walk(statement.value)
            )
        return not isinstance(statement, ast.AugAssign)

    def _is_beside_numbers(self, node: ast.AST, parent: ast.AST) -> bool:
        """Whether *parent* puts the value of *node* together with no tensor."""
        if isinstance(parent, ast.BinOp):
            others = [parent.left, parent.right]
        elif isinstance(parent, ast.Compare):
            others = [parent.left, *parent.comparators]
        elif isinstance(parent, ast.Subscript):
            others = [parent.value]
        else:
            return True
        return all(other is node or self._is_numbers(other) for other in others)

    def _is_numbers(self, other: ast.AST) -> bool:
        """Whether *other* is made of Python's or numpy's numbers, as far as its names tell."""
        if isinstance(other, ast.Attribute) and other.attr in _NUMBERS:
            return True
        if isinstance(other, ast.Call) and isinstance(other.func, ast.Attribute) and other.func.attr in _NUMBERS:
            return True
        if isinstance(other, ast.Name):
            return not isinstance(other.ctx, ast.Load) or self._names_numbers(other)
        return all(map(self._is_numbers, ast.iter_child_nodes(other)))

    def _names_numbers(self, name: ast.Name) -> bool:
        held = _value(name, self.frame)
        if held is not None:
            return not isinstance(held, (torch.Tensor, torch.nn.Module))
        if name.id in self._guessed:
            return True
        self._guessed.add(name.id)
        if any(
            isinstance(each, ast.comprehension) and name.id in map(_set_name, ast.walk(each.target))
            for each in ast.walk(self.scope)
        ):
            return True  # of what is gone through there, which is looked at as well
        given = self._values(name.id)
        return bool(given) and all(map(self._is_numbers, given))

    def _function_of(self, node: ast.AST | None) -> ast.AST | None:
        while node is not None and not isinstance(node, _FUNCTION):
            node = self.source.parents.get(node)
        return node


def _counts(called: ast.expr, frame: FrameType) -> bool:
    """Whether *called* is Python's or numpy's, or a method of what these have given."""
    if isinstance(called, ast.Attribute):
        held = _value(called.value, frame)
        module = held.__name__ if isinstance(held, ModuleType) else type(held).__module__
        return held is not None and module.partition(".")[0] in _COUNTING
    found = _value(called, frame)
    package = (getattr(found, "__module__", None) or "").partition(".")[0]
    return found is not None and (package in _COUNTING or (package == _OURS and called.id in vars(builtins)))  # type: ignore[attr-defined]


def _value(expression: ast.expr, frame: FrameType) -> Any:
    """What *expression*, a name or an attribute of one, stands for; None for any other."""
    if isinstance(expression, ast.Constant):
        return expression.value
    if isinstance(expression, ast.Name):
        for names in (frame.f_locals, frame.f_globals, vars(builtins)):
            if expression.id in names:
                return names[expression.id]
        return None
    # A module's attributes are there already; others may compute something.
    if isinstance(expression, ast.Attribute) and isinstance(held := _value(expression.value, frame), ModuleType):
        return vars(held).get(expression.attr)
    return None


@functools.cache
def _source(path: str) -> _Source:
    """That of *path*; empty if it is none of Python."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):
        tree = ast.Module(body=[], type_ignores=[])
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    placed = (node for node in parents if isinstance(node, (ast.expr, ast.AugAssign)))
    return _Source(tree=tree, parents=parents, of_place={_place(node): node for node in placed})


def _place(node: ast.expr | ast.AugAssign) -> tuple[int, int | None, int, int | None]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def _set_name(node: ast.AST) -> str | None:
    """The name that *node* gives a value to."""
    return node.id if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) else None


def _filled(node: ast.AST) -> str | None:
    """The name of the list that *node* adds to."""
    called = node.func if isinstance(node, ast.Call) else None
    held = called.value if isinstance(called, ast.Attribute) and called.attr in _KEEPING else None
    return held.id if isinstance(held, ast.Name) else None
