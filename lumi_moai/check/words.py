"""From the nodes of the tree to words: quotes, variables, defaults and sums as far as they are constant."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from . import value
from .script import Variable, Word
from .source import Source

# A piece of a word, and whether its blanks split it.
Piece = tuple[str, bool]
_DEEPEST = 60
_LONG = 80  # letters of a command that are shown
_EXPANSION = re.compile(r"\$\{([A-Za-z_]\w*|\d+)(?:(:?[-=+?])(.*))?\}", re.DOTALL)
_ALL_OF = re.compile(r"\$\{([A-Za-z_]\w*)\[[@*]\]\}")
_EXPANDING = frozenset(
    ("simple_expansion", "expansion", "command_substitution", "arithmetic_expansion", "process_substitution")
)


class Words:
    """Expands the nodes of one shell. `run` is called with each command substitution, to look into it."""

    def __init__(self, source: Source, variables: dict[str, Variable], run: Callable[[Any], None]) -> None:
        self.source, self.variables, self.run, self.depth = source, variables, run, 0

    def words(self, node: Any) -> list[Word]:
        """The words that *node* becomes: none for an empty variable without quotes, several for a list in one."""
        raw, place = self.source.raw(node), self.source.of(node)
        return [Word(text=text, raw=raw, place=place) for text in _split(self._pieces(node))]

    def text(self, node: Any) -> str:
        """The value of *node* as the right side of an assignment, where blanks do not split."""
        return value.short("".join(text for text, _ in self._pieces(node)))

    def _pieces(self, node: Any) -> list[Piece]:
        self.depth += 1
        try:
            handler = _HANDLERS.get(node.type) if self.depth < _DEEPEST else _too_deep
            return handler(self, node) if handler else [(_unescaped(self.source.raw(node)), False)]
        finally:
            self.depth -= 1

    def parts(self, node: Any, gap: Callable[[str], str], start: int, end: int) -> Iterator[Piece]:
        """The values of the expansions in *node* between two places, and what stands between them."""
        at = start
        for child in node.children:
            if child.type in _EXPANDING and child.start_byte >= at:
                raw = self.source.raw(child)
                begin = child.start_byte + len(raw) - len(raw.lstrip())  # the grammar takes blanks in front into it
                yield gap(self.source.slice(at, begin)), False
                yield from self._pieces(child)
                at = child.end_byte
        yield gap(self.source.slice(at, max(at, end))), False

    def look_up(self, name: str) -> str:
        """The value of the variable *name*, a hole when nobody set it here."""
        found = self.variables.get(name)
        return found.text if found else value.hole(name)


def _split(pieces: list[Piece]) -> list[str]:
    """Words from pieces: blanks in the value of an unquoted variable end a word."""
    done: list[str] = []
    now: str | None = None
    for text, splits in pieces:
        if not splits:
            now = (now or "") + text
            continue
        parts = re.split(r"[ \t\n]+", text)
        for number, part in enumerate(parts):
            if number and now is not None:
                done.append(now)
                now = None
            if part:
                now = (now or "") + part
    return [value.short(word) for word in [*done, *([now] if now is not None else [])]]


def _unescaped(text: str) -> str:
    return re.sub(r"\\(\n|.)", lambda match: "" if match[1] == "\n" else match[1], text, flags=re.DOTALL)


def _unquoted(text: str) -> str:
    """Text in double quotes: a backslash counts in front of a few letters only."""
    return re.sub(r'\\([$`"\\\n])', lambda match: "" if match[1] == "\n" else match[1], text)


def _too_deep(_words: Words, _node: Any) -> list[Piece]:
    return [(value.hole("nested"), False)]


def _children(words: Words, node: Any) -> list[Piece]:
    return [piece for child in node.children for piece in words._pieces(child)]


def _concatenation(words: Words, node: Any) -> list[Piece]:
    """Pieces side by side; a lone `$` is one that the parser has lost."""
    pieces = []
    for child in node.children:
        pieces += [(value.hole("unread"), False)] if child.type == "$" else words._pieces(child)
    return pieces


def _string(words: Words, node: Any) -> list[Piece]:
    if words.source.raw(node) == '"$@"':
        return [(words.look_up("@"), True)]
    end = node.end_byte - (1 if words.source.raw(node).endswith('"') else 0)
    pieces = list(words.parts(node, _unquoted, node.start_byte + 1, end))
    kept = [(text, splits and text.count(" ") > 0 and _ALL_OF.search(words.source.raw(node)) is not None)
            for text, splits in pieces]  # fmt: skip
    return kept or [("", False)]


def _raw_string(words: Words, node: Any) -> list[Piece]:
    return [(words.source.raw(node)[1:-1], False)]


def _ansi(words: Words, node: Any) -> list[Piece]:
    return [(words.source.raw(node)[2:-1].replace("\\n", "\n").replace("\\t", "\t"), False)]


def _simple(words: Words, node: Any) -> list[Piece]:
    return [(words.look_up(words.source.raw(node).lstrip()[1:]), True)]


def _expansion(words: Words, node: Any) -> list[Piece]:
    raw = words.source.raw(node).lstrip()
    if whole := _ALL_OF.fullmatch(raw):
        return [(words.look_up(whole[1]), True)]
    match = _EXPANSION.fullmatch(raw)
    if not match:
        return [(value.hole(raw[2:-1]), True)]
    name, operator, other = match.groups()
    if operator is None:
        return [(words.look_up(name), True)]
    return [(_default(words, node, name, operator, other), True)]


def _default(words: Words, node: Any, name: str, operator: str, other: str) -> str:
    """`${NAME:-other}` and its kin."""
    given = name in words.variables
    if not given and name.startswith("SLURM_") and operator[-1] in "-=":
        return value.hole(name)  # Slurm sets it, to what is not known
    if operator[-1] == "+":
        return _other(words, node, other) if given else ""
    if given and (words.look_up(name) or ":" not in operator):
        return words.look_up(name)
    text = _other(words, node, other) if operator[-1] in "-=" else value.hole(name)
    if operator[-1] == "=":
        words.variables[name] = Variable(name=name, text=text, raw=other, place=words.source.of(node))
    return text


def _other(words: Words, node: Any, other: str) -> str:
    start = node.end_byte - 1 - len(other)
    inner = "".join(text for text, _ in words.parts(node, _unescaped, start, node.end_byte - 1))
    quoted = len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "\"'"
    return inner[1:-1] if quoted else inner


def _substitution(words: Words, node: Any) -> list[Piece]:
    raw = words.source.raw(node).strip()
    if raw.startswith("$((") and raw.endswith("))"):  # as the parser sees sums in here-documents
        return _sum(words, node)
    words.run(node)
    echo = re.fullmatch(r"\$\(\s*echo\s+\"?\$\{?(\w+)\}?\"?\s*\)", raw)
    inner = raw[2:-1] if raw.startswith("$(") else raw.strip("`")
    short = inner if len(inner) < _LONG else f"{' '.join(inner.split()[:1])[:_LONG]} ..."
    return [(words.look_up(echo[1]) if echo else value.hole(f"({short})"), True)]


def _sum(words: Words, node: Any) -> list[Piece]:
    raw = words.source.raw(node).strip()
    inner = raw[3:-2] if raw.startswith("$((") else raw[2:-1]
    numbers = {name: found.text for name, found in words.variables.items()}
    return [(value.arithmetic(inner.strip(), numbers), True)]


_HANDLERS: dict[str, Callable[[Words, Any], list[Piece]]] = {
    "concatenation": _concatenation, "command_name": _children, "string": _string, "translated_string": _children,
    "raw_string": _raw_string, "ansi_c_string": _ansi, "simple_expansion": _simple, "expansion": _expansion,
    "command_substitution": _substitution, "process_substitution": _substitution, "arithmetic_expansion": _sum,
}  # fmt: skip
