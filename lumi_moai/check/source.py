"""Shell text that is parsed, and where it stands in a file: the file itself, a here-document, the text of `bash -c`."""

import re
from bisect import bisect_right
from functools import cache, cached_property
from typing import Any

from ..sbatch.asked import BOM
from .script import Place
from .value import filled

_NOT_ASCII = re.compile(r"[^\t\n\r -~]")


@cache
def _parser() -> Any:
    import tree_sitter
    import tree_sitter_bash

    return tree_sitter.Parser(tree_sitter.Language(tree_sitter_bash.language()))


class Source:
    """A piece of shell text. `around` is the place of all of it where single characters have none of their own."""

    def __init__(self, path: str, text: str, *, whole: str = "", base: int = 0, around: Place | None = None) -> None:
        self.path, self.text, self.around = path, text, around
        self.whole, self.base = whole or text, base

    @cached_property
    def root(self) -> Any:
        """The tree of the text, in which a byte is a character.

        The parser gets ASCII, one letter for each character: the grammar's C code was seen to crash on others. What a
        hole stands for is no text of the shell any more, so it is letters too.
        """
        text = f" {self.text[1:]}" if self.text.startswith(BOM) else self.text
        return _parser().parse(_NOT_ASCII.sub("_", filled(text)).encode()).root_node

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        for line in self.whole.split("\n"):
            starts.append(starts[-1] + len(line) + 1)
        return starts

    def slice(self, start: int, end: int) -> str:
        """The text between two places of the tree."""
        return self.text[start:end]

    def place(self, start: int, end: int, row: int = 0) -> Place:
        """The place of the characters from *start* to *end*, which begin in line *row* of the text (from 0)."""
        if self.around is not None:
            line = min(self.around.line + row, self.around.end_line)
            return Place(path=self.path, line=line, column=1, end_line=line, end_column=1)
        first, last = self.base + start, self.base + end
        (line, column), (end_line, end_column) = self._at(first), self._at(last)
        return Place(
            path=self.path, line=line, column=column, end_line=end_line, end_column=end_column, start=first, end=last
        )

    def _at(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, offset) - 1
        return line + 1, offset - self._line_starts[line] + 1

    def of(self, node: Any) -> Place:
        """The place of *node*."""
        return self.place(node.start_byte, node.end_byte, node.start_point[0])

    def raw(self, node: Any) -> str:
        """The text of *node*."""
        return self.slice(node.start_byte, node.end_byte)

    def inner(self, node: Any, skip: int, text: str, *, exact: bool) -> "Source":
        """*text* that *node* holds, from *skip* on: of the same file, character by character when *exact*."""
        if exact and self.around is None:
            return Source(self.path, text, whole=self.whole, base=self.base + node.start_byte + skip)
        return Source(self.path, text, around=self.of(node))
