"""The first rank of each node starts one process that writes down what the node and its devices do.

It is `lumi_moai.monitor.record`, started and not imported: a thread would be copied into whatever the script forks, and
would share the interpreter with the training. `LUMI_MOAI_SAMPLE_SECONDS` says how often; 0 switches it off.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from math import isfinite
from pathlib import Path

from ..binding import Launch
from .ranks import Ranks

SECONDS = 10.0
_SHORTEST = 1.0
_LAST_SECONDS = 1.0
_MODULE = "lumi_moai.monitor.record"


def interval(environ: Mapping[str, str]) -> float | None:
    """Seconds between two looks; None where nobody wants any."""
    try:
        seconds = float(environ["LUMI_MOAI_SAMPLE_SECONDS"])
    except (KeyError, ValueError):
        return SECONDS
    return max(seconds, _SHORTEST) if isfinite(seconds) and seconds > 0 else None


def start(run: Path, launch: Launch, ranks: Ranks, pids: Mapping[int, int]) -> "subprocess.Popen[bytes] | None":
    """Record this node into the run folder *run*; *pids* are the processes of all ranks.

    None on any rank but the first of its node, where nobody wants it, or where no process can be started.
    """
    seconds = interval(os.environ)
    if ranks.local_rank != 0 or seconds is None:
        return None
    task = _task(run, launch, ranks, pids, seconds)
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
    try:
        return subprocess.Popen(
            [sys.executable, "-m", _MODULE, json.dumps(task)],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
    except OSError as error:
        print(f"lumi-moai: no samples are recorded on this node: {error}", file=sys.stderr)
        return None


def stop(recorder: "subprocess.Popen[bytes] | None") -> None:
    """End *recorder*; one that hangs in a driver is left to the kernel."""
    if recorder is None:
        return
    recorder.kill()
    with suppress(subprocess.TimeoutExpired):
        recorder.wait(_LAST_SECONDS)


def _task(run: Path, launch: Launch, ranks: Ranks, pids: Mapping[int, int], seconds: float) -> dict[str, object]:
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    # Ranks are numbered node by node, and this is the first one of its node.
    mine = range(ranks.rank, ranks.rank + ranks.local_world_size)
    return {
        "file": str(run / "samples" / f"{ranks.key}-{re.sub(r'[^A-Za-z0-9._-]', '-', node)}.jsonl"),
        "node": node,
        "start": f"r{ranks.restart}{ranks.attempt}",
        "seconds": seconds,
        "sources": _sources(launch),
        "devices": launch.devices_per_node,
        "per_package": launch.per_package,
        "pids": [pids[rank] for rank in mine if rank in pids],
        "parent": os.getpid(),
    }


def _sources(launch: Launch) -> list[str]:
    """Who is asked about the devices; without any the ranks, which then run on the CPU, stand for them."""
    on_cpu = launch.launcher == "local" and os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    return [name for name in launch.monitor if not on_cpu or name == "processes"]
