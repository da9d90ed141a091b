"""Files and folders made, moved and taken away: rank 0 does it, the other ranks find it done."""

import functools
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import together
from .writing import DESK

_OF_TARGET = ("remove", "unlink", "rmdir", "removedirs", "chmod", "chown", "utime", "truncate")
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
    for owner, names in ((os.path, ("exists", "isfile", "isdir", "getsize")), (Path, ("exists", "is_file", "is_dir"))):
        for name in names:
            setattr(owner, name, _looking(getattr(owner, name)))
    for name in ("listdir", "scandir"):
        setattr(os, name, _listing(getattr(os, name)))


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
        result = target
        if DESK.rank == 0:
            with together.alone():  # a tree is removed by calls of our own functions, which only this rank makes
                result = own(*args, **kwargs)
        for path in touched:
            DESK.finished(path)
        return result

    return call


def _making(own: Callable[..., None]) -> Callable[..., None]:
    """A folder that rank 0 makes is there when the call returns; what rank 0 meets instead, every rank meets."""

    @functools.wraps(own)
    def mkdir(path: Any, *args: Any, **kwargs: Any) -> None:
        where = None if DESK.rank is None or kwargs.get("dir_fd") is not None else DESK.ours(path)
        if where is None:
            own(path, *args, **kwargs)
            return
        DESK.before_change(where, is_new=True)
        DESK.as_rank_0(where, functools.partial(own, path, *args, **kwargs))

    return mkdir


def _looking(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def look(path: Any, *args: Any, **kwargs: Any) -> Any:
        if DESK.rank is None:
            return own(path, *args, **kwargs)
        there = DESK.settled(path)
        return own(type(path)(there) if isinstance(path, Path) else there, *args, **kwargs)

    return look


def _listing(own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def names(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        return own(DESK.listed(path), *args, **kwargs)

    return names
