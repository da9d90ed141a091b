"""Files that the script opens for writing: rank 0's become real, what the other ranks write goes nowhere.

The ranks do not wait for each other when a file is written. Rank 0 notes in the job's store when it has closed one, and
a rank that reads a file again which it wrote itself waits for that note. Only before rank 0 changes what it has looked
at itself does it wait: the others look at the same, and must not find the change before they come to it.
"""

import builtins
import errno
import io
import json
import os
import re
import stat
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ....errors import RunError
from ...here import is_in_thread
from . import together

_PATIENCE_SECONDS = 600
_LOOKS = 100_000
"""So many of the last looks are remembered: a script may open a million pictures."""
_WRITING = frozenset("wax+")
_SYSTEM = ("/dev", "/proc", "/sys")
_CACHES = ("_HOME", "_CACHE", "_CACHE_DIR", "_EXTENSIONS_DIR", "_DB_PATH", "CONFIGDIR", "_TMPDIR")
"""How the names of variables end in which libraries are told where their caches are; the list itself is the site's."""
_HOME_CACHES = (".cache", ".triton", ".keras", ".config", ".local")
_GO_BETWEENS = frozenset(
    [
        *("pathlib", "pathlib._local", "pathlib._abc", "shutil", "os", "posixpath", "genericpath", "io", "codecs"),
        *("gzip", "bz2", "lzma", "zipfile", "tarfile", "logging", "logging.handlers", "contextlib", "functools"),
    ]
)
"""Modules that open a file for whoever calls them."""
_OURS_BETWEEN = (__package__, "lumi_moai.runtime.parallel.resume.files")
_OWN_OPENERS = ("lumi_moai.", "tempfile", "multiprocessing")
"""Modules whose files each rank needs for itself."""
_OWN_WORLDS = (
    *("torch._inductor", "torch._dynamo", "torch._functorch", "torch.distributed", "torch.utils.cpp_extension"),
    *("triton", "datasets", "huggingface_hub", "filelock", "multiprocess", "numba", "wandb"),
)
"""The same, however far away the opening is."""


class Desk:
    """Which files rank 0 alone writes, and which it has finished."""

    def __init__(self) -> None:
        self.rank: int | None = None
        """None until the ranks are one device."""
        self._store: Any = None
        self._process = 0
        self._homes: tuple[str, ...] = ()
        self._private: tuple[str, ...] = ()
        self._temporary: tuple[str, ...] = ()
        self._finished: Counter[str] = Counter()
        self._looks: dict[str, None] = {}
        self._acts: Counter[str] = Counter()
        self._others = 0
        self._elsewhere: dict[str, str] = {}

    def open_for(self, rank: int, ranks: int, run: Path, store: Any) -> None:
        """Begin: *store* is where ranks leave their notes, files under the run folder *run* are the script's."""
        self._others = ranks - 1
        home = os.path.expanduser("~")
        told = _absolute(*(value for name, value in os.environ.items() if name.endswith(_CACHES) and value))
        caches = [each for each in told if not any(_within(mine, each) for mine in _absolute(os.getcwd(), str(run)))]
        self._private = _absolute(*_SYSTEM, *caches, *(os.path.join(home, name) for name in _HOME_CACHES))
        self._temporary = _absolute(tempfile.gettempdir(), "/tmp", "/var/tmp")  # noqa: S108
        here = _absolute(os.getcwd(), str(run))
        self._homes = tuple(each for each in here if not any(_within(each_temp, each) for each_temp in self._temporary))
        self._store, self._process, self.rank = store, os.getpid(), rank

    def ours(self, path: Any) -> str | None:
        """The absolute *path* if rank 0 alone writes it; None if each rank writes its own."""
        if self.rank is None or isinstance(path, int) or os.getpid() != self._process or together.is_alone():
            return None
        where = self._of_rank_0(path)
        if any(_within(where, private) for private in self._private):
            return None
        at_home = any(_within(where, home) for home in self._homes)
        if not at_home and any(_within(where, temporary) for temporary in self._temporary):
            return None
        return None if _is_no_file(where) or _wanted_by_each(sys._getframe(1)) else where

    def finished(self, where: str) -> None:
        """This rank has written *where*, moved it there or taken it away."""
        for place in _places(where):
            self._finished[place] += 1
            if self.rank == 0:
                self._store.set(f"files/{place}#{self._finished[place]}", b"1")

    def settled(self, path: Any) -> Any:
        """Where to read *path* from, once rank 0 has done with it what this rank did before.

        Raises RunError when rank 0 never does.
        """
        if self.rank is None or isinstance(path, int):
            return path
        where = self._of_rank_0(path)
        if self.rank == 0:
            self._look(where)
            return path
        count = self._finished.get(where, 0)
        if count and os.getpid() == self._process:
            self._wait(f"files/{where}#{count}", where)
        return path if where == os.path.abspath(os.fsdecode(path)) else where

    def listed(self, folder: Any) -> Any:
        """Where to see what is in *folder*, once rank 0 has done there what this rank did before."""
        if self.rank is None or isinstance(folder, int):
            return folder
        where = self._of_rank_0(folder)
        place = os.path.join(where, "")
        if self.rank == 0:
            self._look(place)
        elif self._finished.get(place) and os.getpid() == self._process:
            self._wait(f"files/{place}#{self._finished[place]}", place)
        return folder if where == os.path.abspath(os.fsdecode(folder)) else where

    def before_change(self, where: str, *, is_new: bool = False) -> None:
        """Rank 0 is about to change *where*: if the script has looked at it, the others may be about to as well.

        A folder that *is_new* may be called by the clock, another on each rank.

        Raises RunError when another rank does not come to the same change.
        """
        if is_in_thread():
            return
        for place in _places(where):
            known = _shape(place) if is_new else place
            self._acts[known] += 1
            key = f"changes/{known}#{self._acts[known]}"
            if self.rank:
                self._store.add(key, 1)
            elif place in self._looks:
                del self._looks[place]
                self._await_others(key, where)

    def as_rank_0(self, where: str, act: Callable[[], None]) -> None:
        """Let rank 0 do *act* to *where*, and every rank meet the OSError that rank 0 meets.

        What has the time in its name is called otherwise on each rank: from now on it is what rank 0 made.
        """
        known = where if is_in_thread() else _shape(where)
        self._acts[known] += 1
        key = f"acts/{known}#{self._acts[known]}"
        if self.rank:
            self._wait(key, where)
            code, made = json.loads(self._store.get(key))
            self.call_alike(where, made)
            if code:
                raise OSError(code, os.strerror(code), where)
            return
        code = 0
        try:
            act()
        except OSError as error:
            code = error.errno or errno.EIO
            raise
        finally:
            self._store.set(key, json.dumps([code, where]))

    def _look(self, place: str) -> None:
        if together.is_alone() or os.getpid() != self._process:
            return
        self._looks.pop(place, None)
        self._looks[place] = None
        if len(self._looks) > _LOOKS:
            del self._looks[next(iter(self._looks))]

    def _await_others(self, key: str, where: str) -> None:
        end = time.monotonic() + _PATIENCE_SECONDS
        while self._store.add(key, 0) < self._others:
            if time.monotonic() > end:
                raise RunError(
                    f"rank 0 is about to change {where}, which the script has looked at before, and another rank has"
                    f" not come to that within {_PATIENCE_SECONDS} s; write and remove files on all ranks alike"
                )
            time.sleep(0.002)

    def call_alike(self, mine: str, of_rank_0: str) -> None:
        """What the script calls *mine* here is *of_rank_0* on rank 0: a name with the time in it, say."""
        if mine == of_rank_0:
            return
        mine, of_rank_0 = os.path.abspath(mine), os.path.abspath(of_rank_0)
        self._elsewhere[mine] = of_rank_0
        while os.path.basename(mine) == os.path.basename(of_rank_0) and mine != os.path.dirname(mine):
            mine, of_rank_0 = os.path.dirname(mine), os.path.dirname(of_rank_0)
        self._elsewhere[mine] = of_rank_0

    def _of_rank_0(self, path: Any) -> str:
        """The absolute *path*, by the name that rank 0 has for it."""
        where = os.path.abspath(os.fsdecode(path))
        folders = [folder for folder in self._elsewhere if _within(where, folder)]
        nearest = max(folders, key=len, default=None)
        return where if nearest is None else self._elsewhere[nearest] + where[len(nearest) :]

    def _wait(self, key: str, where: str) -> None:
        from datetime import timedelta

        try:
            self._store.wait([key], timedelta(seconds=_PATIENCE_SECONDS))
        except RuntimeError as error:
            raise RunError(
                f"rank {self.rank} reads {where}, which rank 0 has not written within {_PATIENCE_SECONDS} s; write it"
                " on all ranks alike"
            ) from error


DESK = Desk()


def begin(rank: int, ranks: int, run: Path) -> None:
    """The ranks are one device from now on; *run* is the run folder."""
    from torch.distributed.distributed_c10d import _get_default_store

    store = _get_default_store()
    # A connection of its own where torch has that: a file may be closed in any thread, at any time.
    DESK.open_for(rank, ranks, run, store.clone() if hasattr(store, "clone") else store)
    if rank:
        os.environ["WANDB_MODE"] = "disabled"


class Opening:
    """`open`, in the place of Python's own; no function, which would become a method of a class that keeps it."""

    def __init__(self, own: Callable[..., Any]) -> None:
        self.own = own
        self.__wrapped__ = own
        self.__name__ = "open"
        self.__doc__ = own.__doc__

    def __call__(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        """As Python's `open`."""
        if DESK.rank is None or kwargs.get("opener") is not None:
            return self.own(file, mode, *args, **kwargs)
        if not _WRITING & set(mode):
            return self.own(DESK.settled(file), mode, *args, **kwargs)
        where = DESK.ours(file)
        if where is None:
            return self.own(file, mode, *args, **kwargs)
        DESK.before_change(where)
        opened = self.own(file, mode, *args, **kwargs) if DESK.rank == 0 else self._nowhere(file, mode, args, kwargs)
        return _told(opened, where)

    def _nowhere(self, file: Any, mode: str, args: tuple, kwargs: dict[str, Any]) -> Any:
        if "+" not in mode:
            return self.own(os.devnull, mode.replace("x", "w").replace("a", "w"), *args, **kwargs)
        # Whoever reads what it has written must find it.
        before = b""
        if "r" in mode or "a" in mode:
            with self.own(file, "rb") as old:
                before = old.read()
        handle, name = tempfile.mkstemp()
        with self.own(handle, "wb") as copy:
            copy.write(before)
        opened = self.own(name, mode.replace("x", "w"), *args, **kwargs)
        os.unlink(name)
        return opened


def install() -> None:
    """Put `Opening` in the place of Python's `open`; once, before the script."""
    builtins.open = io.open = Opening(builtins.open)


def _told(opened: Any, where: str) -> Any:
    """*opened*, which says when it is closed; at its lowest layer, which closes last, however that comes about."""
    raw = getattr(opened, "buffer", opened)
    raw = getattr(raw, "raw", raw)
    own = raw.close

    def close() -> None:
        vars(raw).pop("close", None)
        own()
        DESK.finished(where)

    raw.close = close
    return opened


def _wanted_by_each(frame: Any) -> bool:
    nearest = None
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if nearest is None and name not in _GO_BETWEENS and not name.startswith(_OURS_BETWEEN):
            nearest = name
        if name.startswith(_OWN_WORLDS):
            return True
        frame = frame.f_back
    return (nearest or "").startswith(_OWN_OPENERS)


def _is_no_file(where: str) -> bool:
    """Whether *where* is a pipe, a socket or a device; asked once, as rank 0 may take a file away at any time."""
    try:
        mode = os.stat(where).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _places(where: str) -> tuple[str, str]:
    """What a change of *where* changes: itself, and what its folder holds."""
    return where, os.path.join(os.path.dirname(where), "")


def _shape(where: str) -> str:
    """*where* without the time in it, whose digits are fewer where they would end in noughts: `str(time.time())`."""
    return re.sub(r"\d+", "0", where)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _absolute(*paths: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for path in paths for name in (os.path.abspath(path), os.path.realpath(path))))
