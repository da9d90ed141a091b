"""The steps of one rank, in order: `python -m lumi_moai.runtime --run RUN -- SCRIPT ARG...`.

Everything up to the script needs no torch. Exit codes: the script's own; 1 for an error of the script or of ours;
2 for a wrong command line; 78 when the certificate stopped the job.
"""

import faulthandler
import gc
import json
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..binding import Launch
from ..errors import LumiMoaiError, RunError
from ..plan import Wishes
from . import alarm, certificate, cores, late, recorder, script, watch
from .here import Here, here, remember
from .meeting import Meeting, meet, settle
from .output import counted_streams, mutable_streams, release_streams
from .ranks import Ranks, read

_USAGE = "usage: python -m lumi_moai.runtime --run RUN -- (SCRIPT | --module NAME) ARG..."
_ALONE = (
    "lumi-moai: Warning: this script ran {count} times, once on each rank, and no rank knew of the others: add "
    "lumi_moai.enable_advanced_parallelization() to train on all devices, or submit it on one (--flavor Small)"
)
_MOAI_SWITCH = "MOREH_ENABLE_ADVANCED_PARALLELIZATION"
"""MoAI's variable: set to 1, every script is parallelised."""
_IMPORT_TORCH = (
    "accelerate",
    "transformers",
    "trl",
    "lightning",
    "lightning_fabric",
    "pytorch_lightning",
    "torchmetrics",
)
"""Libraries that the runtime changes, and that may be the first to import torch."""
_INTERFACES = Path("/sys/class/net")


@dataclass(frozen=True, kw_only=True)
class Command:
    """The words of the command line."""

    run: Path
    target: str
    """Name of the script, or of the module."""
    is_module: bool
    arguments: tuple[str, ...]


def parse(words: list[str]) -> Command | None:
    """The command that *words* say, or None when they say none.

    By hand, because everything after the script's name belongs to the script, whatever it looks like.
    """
    rest = list(words)
    if len(rest) < 3 or rest[0] != "--run":
        return None
    run, rest = Path(rest[1]), rest[2:]
    if rest[0] == "--":
        rest = rest[1:]
    is_module = rest[:1] == ["--module"]
    rest = rest[is_module:]
    if not rest:
        return None
    return Command(run=run.absolute(), target=rest[0], is_module=is_module, arguments=tuple(rest[1:]))


def read_job(run: Path) -> tuple[Launch, Wishes]:
    """What the run folder says about the launch, and what the user asked of the runtime.

    Raises RunError when job.json is missing or is no job.
    """
    path = run / "job.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return Launch.from_json(data["launch"]), Wishes.from_json(data.get("parallel", {}))
    except OSError as error:
        raise RunError(f"cannot read {path} ({error.strerror}); --run must name the folder of a run") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} says nothing about its launch ({error!r}); submit the job anew") from error


def main(words: list[str]) -> None:
    """Start one rank and end the process with the right exit code."""
    command = parse(words)
    if command is None:
        print(_USAGE, file=sys.stderr)
        sys.exit(2)
    if sys.__stderr__ is not None:
        faulthandler.enable(sys.__stderr__)  # a crash in compiled code says on every rank where the script was
    try:
        me = _prepare(command)
    except LumiMoaiError as error:
        print(f"{script.REFUSED}{error}", file=sys.stderr)
        sys.exit(1)
    if me is None:
        sys.exit(certificate.WRONG_BINDING)
    meeting = meet(me.run, me.ranks)
    code = script.guarded(partial(_run, command), me.ranks, meeting)
    recorder.stop(me.recorder)
    release_streams()
    _farewell(me, meeting, code)
    script.end(code, connected=me.ranks.world_size > 1 and "torch" in sys.modules)


def _prepare(command: Command) -> Here | None:
    """Everything before the script: who am I, where do I sit, may the job go on; None when it may not."""
    launch, wishes = read_job(command.run)
    ranks = read(os.environ)
    alarm.listen(launch.signal, announce=ranks.rank == 0)
    meeting = meet(command.run, ranks)
    seconds = certificate.patience(os.environ)
    device = cores.device_index(os.environ, ranks.local_rank)
    cores.bind_here(launch, ranks, device, meeting, seconds)
    row = certificate.see_myself(launch, ranks, device)
    pids = certificate.certify(launch, ranks, row, run=command.run, meeting=meeting, seconds=seconds)
    if pids is None:
        return None
    ranks, holder = settle(ranks, meeting, seconds)
    if launch.launcher == "local":
        watch.keep_watch(ranks, meeting, pids)
    set_environment(os.environ, ranks, launch, len(row.cores))
    muted = mutable_streams() if ranks.rank != 0 else ()
    me = Here(
        ranks=ranks,
        launch=launch,
        run=command.run,
        wishes=wishes,
        streams=muted,
        port_holder=holder,
        recorder=recorder.start(command.run, launch, ranks, pids),
    )
    if ranks.rank == 0 and wishes.mode != "script" and wishes.checkpoint != "off":
        counted_streams(me.checkpoints)
    remember(me)
    return me


def set_environment(environ: MutableMapping[str, str], ranks: Ranks, launch: Launch, cores_here: int) -> None:
    """Give the script the variables that torch reads."""
    environ.update(ranks.environment())
    # Unbound ranks share the same cores: as many threads as cores in each of them would only wait for each other.
    sharers = 1 if launch.bind else ranks.local_world_size
    environ.setdefault("OMP_NUM_THREADS", str(max(1, cores_here // sharers)))
    drop_absent_interfaces(environ, announce=ranks.rank == 0)


def drop_absent_interfaces(environ: MutableMapping[str, str], *, announce: bool) -> None:
    """Forget a network interface that the site names but this host lacks; gloo would fail on it."""
    named = environ.get("GLOO_SOCKET_IFNAME")
    if not named or not _INTERFACES.is_dir():
        return
    present = [name for name in named.split(",") if (_INTERFACES / name).exists()]
    if present:
        environ["GLOO_SOCKET_IFNAME"] = ",".join(present)
        return
    del environ["GLOO_SOCKET_IFNAME"]
    if announce:
        print(f"lumi-moai: this host has no network interface {named}; gloo chooses one itself", file=sys.stderr)


def _run(command: Command) -> None:
    code = command.run / "code"
    _meet_moai()
    late.expect(*_IMPORT_TORCH)
    late.within("torch", _frozen)
    late.within("torch._dynamo", _uncollected)
    late.after_import("torch", _meet_torch)
    try:
        if command.is_module:
            script.run_module(command.target, list(command.arguments), code)
        else:
            script.run_file(script.find(code, command.target), list(command.arguments))
    except SystemExit as stop:
        if stop.code:
            raise
    except (RuntimeError, ValueError, IndexError) as error:
        if "torch" in sys.modules:
            from . import parallel

            parallel.explain(error)
        raise
    if "torch" in sys.modules:
        from . import parallel

        parallel.finish()


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for garbage meanwhile.

    Importing torch makes a quarter of a million objects that all stay, and its first optimizer as many again: a fifth
    of the time would go into looking through them.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def _frozen() -> Iterator[None]:
    """The same, and no later search looks at what was made meanwhile."""
    script.remember_files()
    with _uncollected():
        yield
        gc.freeze()


@_frozen()
def _meet_torch() -> None:
    from . import accelerator, group, parallel

    accelerator.install()
    group.remember_joining()
    me = here()
    if me is None or me.wishes.mode == "script":
        return
    parallel.install()
    if me.wishes.mode == "auto" or os.environ.get(_MOAI_SWITCH) == "1":
        parallel.enable()


def _meet_moai() -> None:
    from . import parallel

    me = here()
    if me is not None and me.wishes.mode != "script":
        parallel.answer_to_moai()
        parallel.watch_files()


def _farewell(me: Here, meeting: Meeting, code: int) -> None:
    """Part from the other ranks; those of a job that went well wait for each other and leave their network in order."""
    if code == 0 and "torch" in sys.modules:
        from . import group, parallel

        if me.ranks.world_size > 1 and me.ranks.rank == 0 and not group.was_joined():
            print(_ALONE.format(count=me.ranks.world_size), file=sys.stderr)
        group.leave(together=parallel.is_on())
    if me.launch.launcher == "local":
        watch.leave(me.ranks, meeting, code)
