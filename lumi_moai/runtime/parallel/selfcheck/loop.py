"""The script's own loop, found from the batch that it asks for, as a function that can be run beside the script.

The `for` statement is compiled anew inside a function whose parameters are the names that the script has there, so that
`step += 1` changes a name of the function and not of the script. What a copy cannot keep apart is refused: a body that
appends to the script's lists before its backward, that yields, or a loop over something that was begun already.
"""

import ast
import linecache
import site
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

_OURS = str(Path(__file__).parents[3])
_WRAPPERS = ("enumerate", "tqdm", "track", "list", "iter")
"""Callables that a loop may put around its loader, and that can be made a second time."""
_CHANGING = ("append", "extend", "insert", "add", "update", "write", "writelines", "pop", "remove", "clear", "popleft",
             "setdefault", "appendleft", "discard", "popitem", "sort", "reverse")  # fmt: skip
"""Methods that change what they belong to."""


class CannotBeChecked(Exception):
    """The loop cannot be run beside the script; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A `for` statement of the script, ready to be run."""

    place: tuple[str, int]
    """File and line."""
    run: Callable[[], None]
    restored: tuple[tuple[Any, str], ...]
    """Attributes that the body counts up before its backward: the object, and the attribute's name."""


def place_of(frame: FrameType) -> tuple[str, int]:
    """Where the script stands: file and line."""
    return frame.f_code.co_filename, frame.f_lineno


def users_frame(frame: FrameType | None) -> FrameType | None:
    """The script's frame that asked for the batch; None when a library did."""
    while frame is not None and _is_between(frame.f_code.co_filename):
        frame = frame.f_back
    return frame if frame is not None and not _is_library(frame.f_code.co_filename) else None


def _is_between(file: str) -> bool:
    return file.startswith(_OURS) or "/tqdm/" in file or "/rich/" in file


def _is_library(file: str) -> bool:
    homes = (sysconfig.get_paths()["stdlib"], *site.getsitepackages(), site.getusersitepackages())
    return file.startswith(("<", *homes))


def find(frame: FrameType) -> Loop:
    """The loop in which *frame* has just asked for a batch.

    Raises CannotBeChecked.
    """
    statement = _statement(frame)
    _check_iterable(statement.iter, frame)
    names = {name: value for name, value in frame.f_locals.items() if name.isidentifier()}
    before = list(_before_backward(statement))
    _check_effects(before, names)
    return Loop(place=place_of(frame), run=_function(statement, frame, names), restored=tuple(_counted(before, names)))


def _statement(frame: FrameType) -> ast.For:
    source = "".join(linecache.getlines(frame.f_code.co_filename, frame.f_globals))
    try:
        tree = ast.parse(source)
    except SyntaxError:
        raise CannotBeChecked("its source cannot be read") from None
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.For)]
    here = [loop for loop in loops if loop.lineno <= frame.f_lineno <= (loop.iter.end_lineno or loop.lineno)]
    if not here:
        raise CannotBeChecked("the batch is not fetched by a `for` loop over the DataLoader")
    return here[-1]


def _check_iterable(node: ast.expr, frame: FrameType) -> None:
    """Refuse a loop over anything but a loader, as it is or wrapped."""
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name not in _WRAPPERS or not node.args:
            raise CannotBeChecked(f"its loop runs over {name or 'an expression'}(...)")
        _check_iterable(node.args[0], frame)
        return
    if not isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)):
        raise CannotBeChecked("its loop runs over an expression")
    value = _value(node, frame)
    if hasattr(value, "__next__"):
        raise CannotBeChecked("its loop runs over an iterator that was begun before")


def _value(node: ast.expr, frame: FrameType) -> Any:
    """What the name, attribute or item *node* is."""
    if isinstance(node, ast.Name):
        return frame.f_locals.get(node.id, frame.f_globals.get(node.id))
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, frame), node.attr, None)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        try:
            return _value(node.value, frame)[node.slice.value]
        except (KeyError, IndexError, TypeError):
            return None
    raise CannotBeChecked("its loop runs over an expression")


def _before_backward(loop: ast.For) -> Iterator[ast.AST]:
    """Every node of the body up to its first backward.

    Raises CannotBeChecked when the body has none of its own.
    """
    calls = [node for node in ast.walk(loop) if isinstance(node, ast.Call)]
    ends = [call.lineno for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "backward"]
    if not ends:
        raise CannotBeChecked("its loop calls backward() somewhere else")
    for statement in loop.body:
        yield from (node for node in ast.walk(statement) if getattr(node, "lineno", 0) < min(ends))


def _check_effects(nodes: list[ast.AST], names: Mapping[str, Any]) -> None:
    own = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in nodes:
        if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await, ast.Global, ast.Nonlocal, ast.Delete)):
            raise CannotBeChecked(f"its loop has a {type(node).__name__.lower()}")
        if isinstance(node, ast.Name) and node.id == "super":
            raise CannotBeChecked("its loop calls super()")
        if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Subscript):
            raise CannotBeChecked("its loop changes an item in place before backward()")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
            base = node.func.value
            if not (isinstance(base, ast.Name) and base.id in own):
                raise CannotBeChecked(f"its loop calls {node.func.attr}() before backward()")


def _counted(nodes: list[ast.AST], names: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """The attributes of the script's objects that the body assigns before its backward."""
    targets = [
        target
        for node in nodes
        if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign))
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    for target in targets:
        if isinstance(target, ast.Attribute):
            if not isinstance(target.value, ast.Name):
                raise CannotBeChecked("its loop assigns to an attribute of an expression before backward()")
            if target.value.id in names:
                yield names[target.value.id], target.attr


def _function(statement: ast.For, frame: FrameType, names: Mapping[str, Any]) -> Callable[[], None]:
    """*statement* as a function of no arguments."""
    parameters = [name for name in names if name not in ("__class__",)]
    module = ast.parse(f"def loop({', '.join(parameters)}): pass")
    module.body[0].body = [statement]  # type: ignore[attr-defined]
    made: dict[str, Any] = {}
    try:
        # The script's own statement, from its own file, in its own process.
        exec(compile(module, frame.f_code.co_filename, "exec"), frame.f_globals, made)  # noqa: S102
    except SyntaxError as error:
        raise CannotBeChecked(f"its loop cannot stand alone ({error.msg})") from None
    return lambda: made["loop"](**{name: names[name] for name in parameters})


def caller() -> FrameType | None:
    """The script's frame that has just asked for a batch."""
    return users_frame(sys._getframe(1))
