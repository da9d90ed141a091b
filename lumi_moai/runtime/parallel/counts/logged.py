"""Whether the rows that a script reads ahead of `backward()` go into what it keeps, counts or prints, and into no loss.

`said.extend(p.tolist())`, `hits += (p.numpy() == y.numpy()).sum()` and `print(y.tolist())` mean all rows of the batch,
as one device has them. `weights = table[y.numpy()]` may be for the loss of this rank's rows. The statement in the
script's source tells them apart: what is dropped or added up there, and has passed through nothing but Python's and
numpy's functions, enters no loss.
"""

import ast
import builtins
import functools
import linecache
import sys
from types import CodeType, FrameType, ModuleType
from typing import Any

import torch

from . import users

_COUNTING = {
    *("builtins", "collections", "itertools", "json", "math", "numpy", "pandas", "scipy", "sklearn", "statistics"),
    "lumi_moai",  # whose `sum` and `range` stand for Python's
}
"""Packages whose functions give what a log needs, and no tensors."""
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
_KNOWN: dict[tuple[CodeType, int], bool] = {}
_Tree = dict[ast.AST, ast.AST]


def is_for_log() -> bool:
    """Whether the statement of the script that asks for rows now only keeps, counts or prints them."""
    frame = in_loop()
    if frame is None:
        return False
    key = (frame.f_code, frame.f_lasti)
    if key not in _KNOWN:
        _KNOWN[key] = _is_kept(frame)
    return _KNOWN[key]


def in_loop() -> FrameType | None:
    """The frame of the script that asks for rows now; none within the forward of a model, where they are plain."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not users.is_scripts(frame):
        frame = frame.f_back
    return frame if frame is not None and users.asks_in_loop(frame) else None


def _is_kept(frame: FrameType) -> bool:
    parents, of_place = _source(frame.f_code.co_filename)
    place = list(frame.f_code.co_positions())[frame.f_lasti // 2]
    node = of_place.get(place)
    while node is not None:
        parent = parents.get(node)
        if parent is None or isinstance(parent, _UNFIT):
            return False
        if isinstance(parent, ast.Expr):
            return isinstance(node, ast.Call) and _keeps(node.func, frame)
        if isinstance(parent, (ast.AugAssign, ast.Assign)):
            return _grows(parent, frame)
        if isinstance(parent, ast.stmt):
            return False
        is_argument = isinstance(parent, ast.Call) and node is not parent.func
        if is_argument and not isinstance(parents.get(parent), ast.Expr) and not _counts(parent.func, frame):  # type: ignore[attr-defined]
            return False
        node = parent
    return False


def _keeps(called: ast.expr, frame: FrameType) -> bool:
    """Whether *called*, whose result the script drops, is called for what it keeps or prints."""
    if not isinstance(called, ast.Attribute):
        return _counts(called, frame)
    return called.attr in _KEEPING and not isinstance(_value(called.value, frame), (torch.Tensor, torch.nn.Module))


def _counts(called: ast.expr, frame: FrameType) -> bool:
    """Whether *called* is Python's or numpy's, or a method of what these have given."""
    if isinstance(called, ast.Attribute) and not isinstance(_value(called.value, frame), ModuleType):
        held = _value(called.value, frame)
        return held is not None and type(held).__module__.partition(".")[0] in _COUNTING
    found = _value(called, frame)
    return found is not None and (getattr(found, "__module__", None) or "").partition(".")[0] in _COUNTING


def _grows(statement: ast.AugAssign | ast.Assign, frame: FrameType) -> bool:
    """Whether *statement* adds to something of the script's: `hits += ...`, `said = np.append(said, ...)`."""
    if isinstance(statement, ast.AugAssign):
        return not isinstance(_value(statement.target, frame), torch.Tensor)
    first, *others = statement.targets
    own = first.id if isinstance(first, ast.Name) and not others else ""
    return any(isinstance(each, ast.Name) and each.id == own for each in ast.walk(statement.value))


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
def _source(path: str) -> tuple[_Tree, dict[Any, ast.AST]]:
    """The parent of each node in the source *path*, and the expressions by where they stand; nothing if it is none."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):
        return {}, {}
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    return parents, {_place(node): node for node in parents if isinstance(node, ast.expr)}


def _place(node: ast.expr) -> tuple[int, int | None, int, int | None]:
    return node.lineno, node.end_lineno, node.col_offset, node.end_col_offset
