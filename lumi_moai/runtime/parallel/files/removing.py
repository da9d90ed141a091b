"""Files and folders made, moved and taken away: rank 0 does it, the other ranks find it done."""

import functools
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .writing import DESK

_PATIENCE_SECONDS = 10.0
_OF_TARGET = ("remove", "unlink", "rmdir", "removedirs")
_MOVES = ("rename", "replace", "renames")
_LINKS = ("link", "symlink")
_TREES = ("rmtree",)
_COPIES = ("copyfile", "copymode", "copystat", "copy", "copy2", "copytree")


def install() -> None:
    """Replace them, once, before the script."""
    for name in _OF_TARGET:
        setattr(os, name, _once(getattr(os, name), changed=1))
    for name in _MOVES:
        setattr(os, name, _once(getattr(os, name), changed=2, moves=True))
    for name in _LINKS:
        setattr(os, name, _once(getattr(os, name), changed=2))
    for name in _TREES:
        # Not shutil's own object: Python asks it whether it resists attacks by links.
        setattr(shutil, name, _once(getattr(shutil, name), changed=1))
    for name in _COPIES:
        setattr(shutil, name, _once(getattr(shutil, name), changed=2))
    shutil.move = _once(shutil.move, changed=2, moves=True)
    os.mkdir = _making(os.mkdir)
    for owner, names in ((os.path, ("exists", "isfile", "getsize")), (Path, ("exists", "is_file"))):
        for name in names:
            setattr(owner, name, _looking(getattr(owner, name)))


def _once(own: Callable[..., Any], *, changed: int, moves: bool = False) -> Callable[..., Any]:
    """*own* on rank 0 only, if its *changed*-th argument is a file that rank 0 alone writes.

    *moves*: and takes it from its first.
    """

    @functools.wraps(own)
    def call(*args: Any, **kwargs: Any) -> Any:
        by_name = any("dir_fd" in name and value is not None for name, value in kwargs.items())
        if DESK.rank is None or len(args) < changed or by_name:
            return own(*args, **kwargs)
        target = args[changed - 1]
        where = DESK.ours(target)
        if where is None:
            return own(*args, **kwargs)
        touched = sorted({where, os.path.abspath(os.fsdecode(args[0]))} if moves else {where})
        for path in touched:
            DESK.before_change(path)
        result = own(*args, **kwargs) if DESK.rank == 0 else target
        for path in touched:
            DESK.finished(path)
        return result

    return call


def _making(own: Callable[..., None]) -> Callable[..., None]:
    """A folder that rank 0 makes is there when the call returns; one that it calls otherwise stays away."""

    @functools.wraps(own)
    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        if not DESK.rank or kwargs.get("dir_fd") is not None or DESK.ours(path) is None:
            own(path, *args, **kwargs)
            return
        end = time.monotonic() + _PATIENCE_SECONDS
        while not os.path.isdir(path) and time.monotonic() < end:
            time.sleep(0.005)

    return mkdir


def _looking(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def look(path: Any, *args: Any, **kwargs: Any) -> Any:
        if DESK.rank is None:
            return own(path, *args, **kwargs)
        there = DESK.settled(path)
        return own(type(path)(there) if isinstance(path, Path) else there, *args, **kwargs)

    return look
