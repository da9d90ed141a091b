"""The user's script: run as Python itself would run it, with its own exit code and its own traceback."""

import atexit
import gc
import io
import os
import runpy
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType

from ..errors import LumiMoaiError, RequestError
from .meeting import Meeting, wait_until
from .ranks import Ranks

REFUSED = "lumi-moai: Error: "
"""Ahead of the reason for which we stop a run; `collect` knows it by that."""
FAILED = "failed"
"""What the rank that fails first claims; `lumi-moai logs` asks which one did."""
_MOMENT_SECONDS = 3.0
"""For rank 0 to fail as well: on a busy node ranks have been seen over a second apart."""
_LAST_SECONDS = 5
_THREAD_SECONDS = 1.0
_EARLY_FILES: list[weakref.ref[io.IOBase]] = []


def find(code: Path, name: str) -> Path:
    """The script called *name*: absolute, or relative to the folder *code* of the run.

    Raises RequestError when it is not there.
    """
    path = Path(name) if os.path.isabs(name) else code / name
    if not path.is_file():
        raise RequestError(f"there is no script {path}; a relative name counts from the run's snapshot of the code")
    return path


def run_file(path: Path, arguments: list[str]) -> None:
    """Run the script at *path* as `python PATH ARGUMENTS` would."""
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.parent))
    main = ModuleType("__main__")
    main.__dict__.update(__file__=str(path), __builtins__=__builtins__, __cached__=None)
    sys.modules["__main__"] = main
    exec(compile(path.read_bytes(), str(path), "exec"), main.__dict__)  # noqa: S102


def run_module(name: str, arguments: list[str], code: Path) -> None:
    """Run the module *name* as `python -m NAME ARGUMENTS` would, from the folder *code* of the run."""
    sys.argv = [name, *arguments]
    if code.is_dir():
        sys.path.insert(0, str(code))
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def guarded(script: Callable[[], None], ranks: Ranks, meeting: Meeting) -> int:
    """Run *script* and return the exit code of the process; what went wrong is said here.

    The first rank that fails shows its traceback. The others, which mostly fail because of it, say one line.
    """
    try:
        script()
    except SystemExit as stop:
        return _exit_code(stop)
    except LumiMoaiError as error:
        if _is_first(ranks, meeting) or ranks.rank == 0:
            _write(f"{REFUSED}{error}\n")
        return 1
    except BaseException as error:  # the one place: whatever the user's code raises ends here
        _show(error, ranks, meeting)
        return 130 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def end(code: int, *, connected: bool = False) -> None:
    """Leave the process with *code*; *connected* says that it may have had a network to other ranks.

    Such a rank, and one that failed, leaves without the interpreter's own clearing up: torch's network threads have
    been seen to abort in it ("terminate called without an active exception") or to wait for ranks that are gone.
    Threads, exit functions and open files get their turn before.
    """
    if code == 0 and not connected:
        sys.exit(0)
    if code == 0:
        threading._shutdown()  # type: ignore[attr-defined]  # as the interpreter: ends idle pools, waits for threads
    else:
        _hurry_threads()
    atexit._run_exitfuncs()
    _flush_files()
    os._exit(code)


def _hurry_threads() -> None:
    """Give the threads of a failed rank a moment, and the rank itself a last one."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_LAST_SECONDS)  # the kernel's own, for whatever hangs from here on
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(_THREAD_SECONDS)


def _flush_files() -> None:
    """Write out what open files still hold, as the interpreter would."""
    for file in [*(known() for known in _EARLY_FILES), *_files()]:
        with suppress(OSError, ValueError):
            if file is not None:
                file.flush()
    sys.stdout.flush()
    sys.stderr.flush()


def remember_files() -> None:
    """Know the files of now also when `gc.freeze()` has hidden them.

    `gc.unfreeze()` at the end would have to look through all that torch is made of, a third of a second in a fork.
    """
    _EARLY_FILES.extend(map(weakref.ref, _files()))


def _files() -> Iterator[io.IOBase]:
    # Not isinstance, which asks a proxy for what it stands for.
    return (thing for thing in gc.get_objects() if issubclass(type(thing), io.IOBase))


def _exit_code(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return (stop.code or 0) & 0xFF
    print(stop.code, file=sys.stderr)
    return 1


def _show(error: BaseException, ranks: Ranks, meeting: Meeting) -> None:
    if ranks.world_size > 1 and not _is_first(ranks, meeting):
        last = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
        _write(f"lumi-moai: rank {ranks.rank} stopped too: {last}\n")
        return
    if ranks.world_size > 1:
        _write(f"lumi-moai: rank {ranks.rank} failed:\n")
    _write("".join(traceback.format_exception(type(error), error, _users_part(error.__traceback__))))


def _users_part(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames that only lead to the user's code."""
    ours = (os.path.dirname(__file__), "<frozen ")
    part = trace
    while part is not None and part.tb_frame.f_code.co_filename.startswith(ours):
        part = part.tb_next
    return part or trace


def _is_first(ranks: Ranks, meeting: Meeting) -> bool:
    """Whether this rank tells what went wrong; where all failed alike it is rank 0, whose log is looked into first."""
    if ranks.rank != 0:
        wait_until(lambda: meeting.is_claimed(FAILED), _MOMENT_SECONDS)
    # A run folder that cannot be written must not silence the error.
    return meeting.claim(FAILED, ranks.rank) or not meeting.is_claimed(FAILED)


def _write(text: str) -> None:
    sys.stdout.flush()
    stream = sys.__stderr__ or sys.stderr  # the script's own stderr may be silenced on this rank
    stream.write(text)
    stream.flush()
