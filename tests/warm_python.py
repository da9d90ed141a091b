"""A Python that has imported torch already, and from which others fork: `python WORDS` without the seconds of an import.

Run as a program this is the server. It forks once for each request, and the child does what `python WORDS` would: with
an environment, a folder, streams and numbers by chance of its own, and without torch in `sys.modules` until it imports
it. What it does not keep are the interpreter's own options; tests of the start itself take a cold Python.
"""

import atexit
import copy
import functools
import gc
import io
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr, suppress
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType

IMPORTED = ("torch", "torch._dynamo", "torch.distributed.fsdp", "torch.distributed.tensor.parallel")
"""What a server imports, in this order: optimizers of torch import the second, what spreads weights the others."""
_LARGEST = 1 << 20
_SEED = "PYTHONHASHSEED"


class Warm:
    """A process that a server forked, which has imported *more* as well; of `subprocess.Popen`, what tests use."""

    def __init__(self, words, *, cwd, env, more=()):
        streams = [os.pipe() for _ in range(3)]
        theirs = [written for _, written in streams]
        request = {"words": list(map(str, words)), "cwd": os.fspath(cwd), "environment": env}
        talk = _server(more)
        socket.send_fds(talk, [json.dumps(request).encode()], theirs)
        self.pid = int(talk.recv(_LARGEST))
        for each in theirs:
            os.close(each)
        out, error, self._ended = (read for read, _ in streams)
        self.stdout, self.stderr = os.fdopen(out), os.fdopen(error)
        self.returncode = None

    def poll(self):
        """The exit code, or None while the process lives."""
        if self.returncode is None and select.select([self._ended], [], [], 0)[0]:
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._ended, 16)))
            os.close(self._ended)
        return self.returncode

    def wait(self, timeout=None):
        """The exit code, when the process has ended."""
        if self.returncode is None and not select.select([self._ended], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("warm python", timeout)
        return self.poll()

    def communicate(self, timeout=None):
        """What the process says until its end."""
        with ThreadPoolExecutor(2) as both:
            said = [both.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                found = [each.result(timeout) for each in said]
            except TimeoutError:
                self.kill()
                raise
        self.wait(timeout)
        self.stdout.close()
        self.stderr.close()
        return found

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)


@functools.cache
def _server(more):
    """The socket to the server that has *more*, which is started with the first request of a test run."""
    mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    env = {**os.environ, _SEED: "0", "OMP_NUM_THREADS": "1"}
    env.pop("PYTHONPATH", None)  # each request has its own
    process = subprocess.Popen(
        [sys.executable, "-P", __file__, str(theirs.fileno()), *more], env=env, pass_fds=[theirs.fileno()]
    )
    theirs.close()
    atexit.register(process.wait)
    atexit.register(mine.close)  # before the wait; the server ends with its socket
    return mine


class _Stderr:
    """What `sys.stderr` is when it is used."""

    def __getattr__(self, name):
        return getattr(sys.__stderr__ if sys.stderr is self else sys.stderr, name)


class _Again(MetaPathFinder, Loader):
    """Gives what the server has imported to the import system of a child as if it were new."""

    def __init__(self):
        self.modules = {}
        self.specs = {}
        self.brought = {}
        """The modules that each import brings along, in its order."""

    def import_all(self, names):
        """Import *names*, and hide them."""
        before = set(sys.modules)
        for name in names:
            with redirect_stderr(_Stderr()):  # torch's log keeps it
                import_module(name)
            found = [other for other in sys.modules if other not in before and other not in self.modules]
            self.brought[name] = [other for other in found if _can_be_hidden(other)]
            self.modules |= {other: sys.modules[other] for other in self.brought[name]}
        self.specs = {name: module.__spec__ for name, module in self.modules.items()}
        for name in self.modules:
            del sys.modules[name]

    def find_spec(self, name, path, target=None):
        """The spec of a hidden module."""
        if name not in self.specs:
            return None
        spec = copy.copy(self.specs[name])
        spec.loader = self
        return spec

    def create_module(self, spec):
        """The hidden module, which is whole."""
        return self.modules[spec.name]

    def exec_module(self, module):
        """Nothing of its own: what it imports when it is new is imported now, through whoever waits for it."""
        name = vars(module)["__spec__"].name
        vars(module).update(__spec__=self.specs[name], __loader__=self.specs[name].loader)  # a config refuses setattr
        for other in self.brought.pop(name, ()):
            import_module(other)


def _can_be_hidden(name):
    """Not what Python needs for itself, and what an import would not give back as it was."""
    parent, _, child = name.rpartition(".")
    is_itself = not parent or vars(sys.modules[parent]).get(child) is sys.modules[name]
    known = vars(sys.modules[name]).get("__spec__")
    is_known = known is not None and known.name == name  # setuptools gives its own distutils out as Python's
    return is_itself and is_known and name.partition(".")[0] not in sys.stdlib_module_names


def _asked(talk):
    """Serve requests for ever; in each child, what was asked of it."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    children = {}
    while True:
        ready = select.select([talk, woken], [], [])[0]
        if woken in ready:
            os.read(woken, 4096)
            _bury(children)
        if talk not in ready:
            continue
        request, streams, _, _ = socket.recv_fds(talk, _LARGEST, 3)
        if not request:
            sys.exit()
        pid = os.fork()
        if pid:
            children[pid] = streams.pop()
            for each in streams:
                os.close(each)
            talk.send(str(pid).encode())
            continue
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        talk.close()
        for each in (woken, wake, *children.values()):
            os.close(each)
        return json.loads(request), streams


def _bury(children):
    """Tell how the children ended that have ended."""
    for pid, ended in list(children.items()):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            os.write(ended, str(status).encode())
            os.close(children.pop(pid))


def _become(request, streams, again):
    """Have the streams, the folder, the environment and the paths of a new `python`."""
    for place, stream in zip((1, 2), streams, strict=False):
        os.dup2(stream, place)
    for stream in streams:
        os.close(stream)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update({_SEED: "0", **request["environment"]})
    sys.orig_argv = [sys.executable, *request["words"]]
    ours = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:0] = ours
    sys.meta_path.insert(0, again)
    again.modules["numpy"].random.seed()  # a fork has the numbers of its parent


def _run(words):
    """Do what `python WORDS` does."""
    sys.modules["__main__"] = main = ModuleType("__main__")
    main.__dict__.update(__builtins__=__builtins__, __annotations__={})
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        runpy._run_module_as_main(words[1])
    else:
        sys.argv = words
        sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
        main.__file__ = words[0]
        with open(words[0], "rb") as script:
            exec(compile(script.read(), words[0], "exec"), main.__dict__)


def _end(code):
    """Leave as the interpreter does, but for clearing away all modules, which takes longer than most scripts."""
    threading._shutdown()
    atexit._run_exitfuncs()
    for thing in gc.get_objects():
        if issubclass(type(thing), io.IOBase):
            with suppress(OSError, ValueError):
                thing.flush()
    os._exit(code)


def _code(words):
    """The exit code of `python WORDS`."""
    try:
        _run(words)
    except SystemExit as stop:
        if isinstance(stop.code, int | None):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _again = _Again()
    _again.import_all([*IMPORTED, *sys.argv[2:]])
    gc.freeze()  # what a child's collector looks at, the kernel copies for the child
    _request, _streams = _asked(socket.socket(fileno=int(sys.argv[1])))
    _become(_request, _streams[:2], _again)
    _end(_code(_request["words"]))
