"""What the source of the script says: which functions only count, which names are set, which lists are added to."""

import ast
import builtins
import functools
import linecache
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

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
KEEPING = {
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


@dataclass(frozen=True, kw_only=True)
class Source:
    """The source of a file."""

    tree: ast.Module
    parents: dict[ast.AST, ast.AST]
    of_place: dict[Any, ast.AST]
    """Expressions, and statements that add or go through something, by where they stand."""


def counts(called: ast.expr, frame: FrameType) -> bool:
    """Whether *called* is Python's or numpy's, or a method of what these have given."""
    if isinstance(called, ast.Attribute):
        held = value_of(called.value, frame)
        module = held.__name__ if isinstance(held, ModuleType) else type(held).__module__
        return held is not None and module.partition(".")[0] in _COUNTING
    found = value_of(called, frame)
    package = (getattr(found, "__module__", None) or "").partition(".")[0]
    return found is not None and (package in _COUNTING or (package == _OURS and called.id in vars(builtins)))  # type: ignore[attr-defined]


def value_of(expression: ast.expr, frame: FrameType) -> Any:
    """What *expression*, a name or an attribute of one, stands for; None for any other."""
    if isinstance(expression, ast.Constant):
        return expression.value
    if isinstance(expression, ast.Name):
        for names in (frame.f_locals, frame.f_globals, vars(builtins)):
            if expression.id in names:
                return names[expression.id]
        return None
    # A module's attributes are there already; others may compute something.
    if isinstance(expression, ast.Attribute) and isinstance(held := value_of(expression.value, frame), ModuleType):
        return vars(held).get(expression.attr)
    return None


@functools.cache
def source_of(path: str) -> Source:
    """That of *path*; empty if it is none of Python."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):
        tree = ast.Module(body=[], type_ignores=[])
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    placed = (node for node in parents if isinstance(node, (ast.expr, ast.AugAssign, ast.For)))
    return Source(tree=tree, parents=parents, of_place={place_of(node): node for node in placed})


@functools.cache
def line_that_asks_for_kinds(path: str) -> int | None:
    """Where `type(...) is list`, or tuple, is asked in *path*, which a class of its own would answer with no."""
    asked = (each.lineno for each in ast.walk(source_of(path).tree) if isinstance(each, ast.Compare) and _asks(each))
    return next(asked, None)


def _asks(comparison: ast.Compare) -> bool:
    within = [*ast.walk(comparison)]
    names = {each.id for each in within if isinstance(each, ast.Name)}
    is_of_class = "type" in names or any(
        isinstance(each, ast.Attribute) and each.attr == "__class__" for each in within
    )
    return is_of_class and not names.isdisjoint({"list", "tuple"})


def place_of(node: ast.expr | ast.AugAssign | ast.For) -> tuple[int, int | None, int, int | None]:
    """Where *node* stands, as Python says of what runs: lines and columns."""
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset


def are_named_apart(target: ast.expr) -> bool:
    """Whether *target* gives each of several things a name."""
    return isinstance(target, (ast.Tuple, ast.List)) and not any(isinstance(each, ast.Starred) for each in target.elts)


def given_to(name: str, statement: ast.Assign) -> list[ast.expr]:
    """What *statement* gives to *name*: of several, each to its own, the one that it gets."""
    given: list[ast.expr] = []
    for target in statement.targets:
        if are_named_apart(target) and isinstance(statement.value, ast.Tuple):
            pairs = zip(target.elts, statement.value.elts, strict=False)  # type: ignore[attr-defined]
        else:
            pairs = zip([target], [statement.value], strict=True)
        given += [value for each, value in pairs if name in map(set_name, ast.walk(each))]
    return given


def set_name(node: ast.AST) -> str | None:
    """The name that *node* gives a value to."""
    return node.id if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load) else None


def filled(node: ast.AST) -> str | None:
    """The name of the list that *node* adds to."""
    called = node.func if isinstance(node, ast.Call) else None
    held = called.value if isinstance(called, ast.Attribute) and called.attr in KEEPING else None
    return held.id if isinstance(held, ast.Name) else None
