"""Text with holes: what a shell word is known to be, and the names of what only the run can tell.

A hole is a name between two characters of Unicode's private area, so that text stays text; `read` takes these two
characters out of any script beforehand.
"""

import ast
import re
from collections.abc import Mapping

_OPEN, _CLOSE = "\ue000", "\ue001"
_HOLE = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
_NAME = re.compile(r"^\(.*|[A-Za-z_]\w*|.*", re.DOTALL)
_FAST_BLANK = "\u00a0"
_LONGEST = 20_000  # of a value; a script that doubles a variable in a loop must not fill the memory


def _quotient(one: int, other: int) -> int:
    """As in a shell, which cuts towards zero where Python rounds down."""
    whole = abs(one) // abs(other)
    return whole if (one < 0) == (other < 0) else -whole


_OPERATORS = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: _quotient, ast.Mod: lambda a, b: a - b * _quotient(a, b),
}  # fmt: skip


def cleaned(text: str) -> str:
    """*text* without the characters that mark holes, and without NUL."""
    return text.translate({ord(_OPEN): "?", ord(_CLOSE): "?", 0: "?"})


def hole(name: str) -> str:
    """A hole called *name*; its blanks are made fast, so that they split no word."""
    return _OPEN + _FAST_BLANK.join(cleaned(name).split()) + _CLOSE


def holes(text: str) -> tuple[str, ...]:
    """What the holes in *text* are made of: the name of the variable, or the command behind a bracket."""
    return tuple(_NAME.search(name)[0] for name in _HOLE.findall(text))  # type: ignore[index]


def known(text: str) -> bool:
    """Whether nothing of *text* is left to the run."""
    return _OPEN not in text


def filled(text: str) -> str:
    """*text* with letters in the place of holes, as many as before."""
    return _HOLE.sub(lambda match: "_" * len(match[0]), text)


def shown(text: str) -> str:
    """*text* for people: `${NAME}` for a hole.

    >>> shown("a/" + hole("USER"))
    'a/${USER}'
    """
    return _HOLE.sub(_shown_hole, text)


def _shown_hole(match: re.Match[str]) -> str:
    name = match[1].replace(_FAST_BLANK, " ")
    return f"${name}" if name.startswith("(") else f"${{{name}}}"


def short(text: str) -> str:
    """*text*, or a hole where it has grown beyond what anybody writes."""
    return text if len(text) <= _LONGEST else hole("long")


def whole_number(text: str) -> int | None:
    """The number that *text* is, or None."""
    return int(text) if re.fullmatch(r"[+-]?\d{1,12}", text, re.ASCII) else None


def arithmetic(text: str, variables: Mapping[str, str]) -> str:
    """The value of a shell sum such as `SLURM_NNODES*8`; a hole with the name of the first unknown in it.

    Only whole numbers, `+ - * / %` and brackets are reckoned, as Python's own grammar reads them; nothing is run.
    """
    names = re.findall(r"[A-Za-z_]\w*", text)
    unknown = [name for name in names if whole_number(variables.get(name, "")) is None]
    if unknown:
        return hole(unknown[0])
    filled = re.sub(r"\$?\{?([A-Za-z_]\w*)\}?", lambda match: variables[match[1]], text).replace("/", "//")
    if not re.fullmatch(r"[\d\s+*/%()-]{1,200}", filled, re.ASCII) or "**" in filled:
        return hole("arithmetic")
    try:
        return str(_number(ast.parse(filled.strip(), mode="eval").body))
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError):
        return hole("arithmetic")


def _number(node: ast.expr) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        inner = _number(node.operand)
        return -inner if isinstance(node.op, ast.USub) else inner
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        value = _OPERATORS[type(node.op)](_number(node.left), _number(node.right))
        if abs(value) < 10**18:
            return value
    raise ValueError(ast.dump(node))
