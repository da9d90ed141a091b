"""Files while a restart repeats steps: what the script wrote then is there already.

Text files that it opens anew are written again, with the same text, since it reads the same numbers. All else is left
as it is: models and arrays (whose values are not computed again), lines that are added to files, renaming, removing.
"""

import builtins
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Callable
from typing import Any

import torch

from ..fetching import is_fetching
from .reads import is_scripts

_MOVES = ((os, "replace"), (os, "rename"), (os, "remove"), (os, "unlink"), (shutil, "move"), (shutil, "rmtree"))


class Gate:
    """A file that takes nothing until *is_over*() says that the steps are repeated."""

    def __init__(self, file: Any, is_over: Callable[[], bool]) -> None:
        self._file = file
        self._is_over = is_over

    def write(self, text: Any) -> int:
        """Write *text*, or drop it."""
        return self._file.write(text) if self._is_over() else len(text)

    def writelines(self, lines: Any) -> None:
        """Write *lines*, or drop them."""
        for line in lines:
            self.write(line)

    def truncate(self, size: int | None = None) -> int:
        """Cut the file, or leave it."""
        return self._file.truncate(size) if self._is_over() else 0

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def guard(is_over: Callable[[], bool]) -> Callable[[], None]:
    """Leave the script's files alone from now on; call what is returned when *is_over*."""
    changed: list[tuple[Any, str, Any]] = [(builtins, "open", _opening(builtins.open, is_over))]
    changed += [(torch, "save", _saving(torch.save, is_over))]
    changed += [(owner, name, _not_while(getattr(owner, name), is_over)) for owner, name in _MOVES]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changed]
    for owner, name, value in changed:
        setattr(owner, name, value)

    def undo() -> None:
        for owner, name, value in before:
            setattr(owner, name, value)

    return undo


def _is_asked_by_script() -> bool:
    """Whether the script, or a library that writes for it, wants something of files; the runtime's own files stay."""
    frame = sys._getframe(2)
    while frame.f_code.co_filename == pathlib.__file__ and frame.f_back is not None:
        frame = frame.f_back
    return is_scripts(frame.f_code)


def _opening(own: Callable[..., Any], is_over: Callable[[], bool]) -> Callable[..., Any]:
    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if is_over() or not _is_asked_by_script() or not set(mode) & set("wax+"):
            return own(file, mode, *args, **kwargs)
        if "x" in mode:
            mode = mode.replace("x", "w")
        if "b" not in mode and "w" in mode:
            return own(file, mode, *args, **kwargs)
        # To the end and not to the beginning: what is in the file stays.
        return Gate(own(file, mode.replace("w", "a"), *args, **kwargs), is_over)

    return opened


def _not_while(own: Callable[..., Any], is_over: Callable[[], bool]) -> Callable[..., Any]:
    def only_then(*args: Any, **kwargs: Any) -> Any:
        if is_over() or not (own is torch_save(own) or _is_asked_by_script()):
            return own(*args, **kwargs)
        return None

    return only_then


def _saving(own: Callable[..., Any], is_over: Callable[[], bool]) -> Callable[..., Any]:
    to_file = _not_while(own, is_over)

    def save(obj: object, f: Any, *args: Any, **kwargs: Any) -> Any:
        # As bytes samples travel, and a collate function's are kept from it.
        save = own if isinstance(f, io.BytesIO) and is_fetching() else to_file
        return save(obj, f, *args, **kwargs)

    return save


def torch_save(own: Callable[..., Any]) -> Callable[..., Any] | None:
    """*own* if it is `torch.save`, which torch's own code may call for the script."""
    return own if getattr(own, "__name__", "") == "save" else None
