"""The body of the script's training loop as code that can be run apart, and what stands against it."""

import ast
import copy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any

from ....errors import RequestError

_PASSING = frozenset(("tqdm", "islice", "iter", "progress", "track", "trange"))
"""Functions around a loader that hand its batches on as they are."""
_LASTING = {
    "next": "takes from another iterator",
    "open": "opens a file",
    "write": "writes to a file",
    "writelines": "writes to a file",
    "save": "saves",
    "put": "puts something into a queue",
    "log": "logs",
    "info": "logs",
    "debug": "logs",
    "warning": "logs",
    "add_scalar": "logs",
    "add_scalars": "logs",
    "step": "takes a step",
}
"""What a script may do ahead of backward that cannot be taken back."""
_OF_C = ("builtin_function_or_method", "ufunc")
_DEPTH = 3


class Unfit(Exception):
    """The loop's body cannot be run apart; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """The training loop that is at its first batch."""

    code: CodeType
    """Runs the body once, on the value in `VALUE`."""
    names: dict[str, Any]
    """What the body sees, a copy."""
    is_numbered: bool
    """Whether the loop goes over `enumerate(...)`."""
    frame: FrameType


VALUE = "_lumi_moai_value"
STOP = "_lumi_moai_stop"


def find() -> Body:
    """The loop that asked for a batch just now.

    Raises Unfit when there is none, or when its body cannot be run apart.
    """
    frame = _script_frame()
    loop = _loop_at(frame)
    names = {**frame.f_globals, **frame.f_locals}
    _check(loop, names)
    inner = ast.For(target=loop.target, iter=ast.Name(VALUE, ast.Load()), body=copy.deepcopy(loop.body), orelse=[])
    tree = ast.Module([_Without().visit(inner)], [])
    code = compile(ast.fix_missing_locations(tree), frame.f_code.co_filename, "exec")
    return Body(code=code, names=names, is_numbered=_is_numbered(loop.iter, names), frame=frame)


def why(error: Exception, *, in_parts: bool) -> str:
    """Why the body, which raised *error*, does not run by itself.

    Raises RequestError where it broke off a backward of weights *in_parts*: FSDP would no longer give gradients.
    """
    first = str(error).partition("\n")[0]
    reason = f"the loop's body does not run by itself ({type(error).__name__}: {first})"
    trace = error.__traceback__
    while in_parts and trace is not None:
        if trace.tb_frame.f_code.co_name == "_engine_run_backward":
            raise RequestError(
                f"the self-check of the first step broke off in backward: {reason}; use --self-check off"
            )
        trace = trace.tb_next
    return reason


def is_library(name: str) -> bool:
    """Whether the file *name* belongs to a library rather than to the script."""
    path = Path(name)
    return (
        name.startswith("<")
        or path.is_relative_to(Path(__file__).parents[3])
        or bool({"site-packages", "dist-packages"} & set(path.parts))
        or path.is_relative_to(Path(ast.__file__).parent)
    )


def _script_frame() -> FrameType:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and is_library(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        raise Unfit("no loop of the script asked for the batch")
    return frame


@cache
def _parsed(name: str) -> ast.Module:
    return ast.parse(Path(name).read_bytes())


def _loop_at(frame: FrameType) -> ast.For:
    try:
        tree = _parsed(frame.f_code.co_filename)
    except (OSError, SyntaxError):
        raise Unfit("the script's source cannot be read") from None
    line = frame.f_lineno
    loops = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.For) and node.lineno <= line <= (node.iter.end_lineno or node.lineno)
    ]
    if len(loops) != 1:
        raise Unfit("the batches are not taken by a for loop of the script")
    return loops[0]


def _is_numbered(iterable: ast.expr, names: Mapping[str, Any]) -> bool:
    """Whether *iterable* gives numbers with the batches.

    Raises Unfit when it gives something else.
    """
    while isinstance(iterable, ast.Call) and iterable.args:
        name = _called(iterable)
        if name == "enumerate":
            return True
        if name == "zip":
            raise Unfit("the loop goes over several iterables at once")
        if name not in _PASSING:
            return False
        iterable = iterable.args[0]
    found: Any = names.get(iterable.id) if isinstance(iterable, ast.Name) else None
    while hasattr(type(found), "__iter__") and hasattr(found, "iterable"):  # a progress bar made before the loop
        found = found.iterable
    return isinstance(found, enumerate)


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


class _Without(ast.NodeTransformer):
    """A `return` of the loop's function ends the body."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:  # ast's name
        """Leave functions within as they are."""
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """Leave functions within as they are."""
        return node

    def visit_Return(self, node: ast.Return) -> ast.AST:
        """Stop instead."""
        return ast.Raise(exc=ast.Name(STOP, ast.Load()))


def _check(loop: ast.For, names: Mapping[str, Any]) -> None:
    """Raise Unfit when what comes before backward leaves something behind."""
    before = []
    for statement in loop.body:
        before.append(statement)
        if _goes_back(statement, names):
            break
    else:
        raise Unfit("no backward is seen in the loop's body")
    for node in _reached(before, names, _DEPTH):
        if isinstance(node, (ast.Yield, ast.YieldFrom, ast.Await)):
            raise Unfit("the loop's body hands something out before backward")
        if not isinstance(node, ast.Call):
            continue
        name = _called(node)
        if name in _LASTING and not _is_harmless(node, names):
            raise Unfit(f"before backward the loop's body {_LASTING[name]} ({name})")
        if name == "print" and any(each.arg == "file" for each in node.keywords):
            raise Unfit("before backward the loop's body prints into a file")


def _is_harmless(call: ast.Call, names: Mapping[str, Any]) -> bool:
    """Whether *call*, of something with one of the names in `_LASTING`, leaves nothing behind all the same."""
    name = _called(call)
    if name == "step":  # of a scheduler or a game
        return bool(call.args)
    if name == "log":  # a logarithm: of a tensor, or of the C functions of math, torch and numpy
        return not (call.args or call.keywords) or type(_named(call.func, names)).__name__ in _OF_C
    return isinstance(call.func, ast.Name) and _function(call.func, names) is not None  # what it does is looked at


def _goes_back(statement: ast.stmt, names: Mapping[str, Any]) -> bool:
    return any(
        isinstance(node, ast.Call) and _called(node) == "backward" for node in _reached([statement], names, _DEPTH)
    )


def _reached(statements: list[ast.stmt], names: Mapping[str, Any], depth: int) -> Iterator[ast.AST]:
    """The nodes of *statements*, up to backward, and of the script's own functions that they call."""
    for node in chain.from_iterable(_in_order(statement) for statement in statements):
        yield node
        if isinstance(node, ast.Call):
            if _called(node) == "backward":
                return
            function = _function(node.func, names)
            if function is not None and depth:
                yield from _reached(_statements(function), function.__globals__, depth - 1)


def _in_order(node: ast.AST) -> Iterator[ast.AST]:
    """*node* and what is in it, as it is computed: a call after its arguments."""
    for child in ast.iter_child_nodes(node):
        yield from _in_order(child)
    yield node


def _function(func: ast.expr, names: Mapping[str, Any]) -> FunctionType | None:
    """The function of the script that *func* names."""
    found: Any = None
    if isinstance(func, ast.Name):
        found = names.get(func.id)
    elif isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id in names:
        found = getattr(type(names[func.value.id]), func.attr, None)
    found = found.__func__ if isinstance(found, MethodType) else found
    if not isinstance(found, FunctionType) or is_library(found.__code__.co_filename):
        return None
    return found


def _named(func: ast.expr, names: Mapping[str, Any]) -> Any:
    """What *func*, `log` or `torch.log`, is; None where that takes more than looking."""
    if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
        return getattr(names.get(func.value.id), func.attr, None)
    return names.get(func.id) if isinstance(func, ast.Name) else None


def _statements(function: FunctionType) -> list[ast.stmt]:
    code = function.__code__
    for node in ast.walk(_parsed(code.co_filename)):
        if isinstance(node, ast.FunctionDef) and node.name == code.co_name:
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            if first == code.co_firstlineno:
                return node.body
    return []
