"""What the runtime costs: our run of a bare script beside the same training written by hand, turn by turn."""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
sys.path.insert(0, str(SCRIPTS.parent.parent))
from runtime_ranks import launch, submitit  # noqa: E402

from lumi_moai.launch.snapshot import copy_library  # noqa: E402
from lumi_moai.plan import Layout, Wishes  # noqa: E402
from lumi_moai.rundir import RunFolder  # noqa: E402
from lumi_moai.runtime.parallel.resume.interval import FIRST_SECONDS  # noqa: E402

# words, width, blocks, length, global batch
SIZES = {"large": "4096,256,8,64,16", "small": "256,64,4,32,8"}
STEPS = 3
"""Of a turn."""
LEAST_TURNS = 6
SECONDS = 60
"""For the turns of two runs; the median of their ratios moves little after some twenty turns."""
ROUNDS = 4
"""In which the same runs start anew: how memory happens to lie lasts as long as a process (0.99 to 1.07 in five starts)."""
SAVE_SECONDS = 1.0
"""Between checkpoints where they are measured, so that there is about one a turn."""
STARTS = 10
"""Pairs: one start takes up to a second more than the next on a machine that is shared."""


class Ranks:
    """The processes of one run, which wait for their turn; with byte code, as after a first run."""

    def __init__(self, commands, environments, size, folder=None):
        self.folder = folder
        self.pipes, self.processes = [], []
        for command, environment in zip(commands, environments, strict=True):
            mine, theirs = os.pipe()
            given = {**os.environ, "PYTHONPATH": str(SCRIPTS), **environment, "BENCH_SIZES": SIZES[size],
                     "BENCH_PIPE": str(theirs), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": ""}  # fmt: skip
            process = subprocess.Popen(
                command, env=given, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[theirs], text=True, cwd=SCRIPTS,
                stderr=None if os.environ.get("BENCH_LOUD") else subprocess.DEVNULL,
            )  # fmt: skip
            os.close(theirs)
            self.processes.append(process)
            self.pipes.append(os.fdopen(mine))
        self.cpu = sum(float(cpu) for _, cpu in self._answers())
        """Seconds of all ranks until each stood before its first step."""

    def _answers(self):
        answers = [pipe.readline().split() for pipe in self.pipes]
        if not all(answers):
            raise RuntimeError("a run of the bench ended; see why with BENCH_LOUD=1")
        return answers

    def turn(self, steps):
        """Seconds by the clock and CPU seconds of all ranks for *steps* steps."""
        for process in self.processes:
            process.stdin.write(f"{steps}\n")
            process.stdin.flush()
        answers = self._answers()
        return max(float(wall) for wall, _ in answers), sum(float(cpu) for _, cpu in answers)

    def end(self):
        for process in self.processes:
            process.kill()
            process.communicate()
        for pipe in self.pipes:
            pipe.close()


def ours(folder, count, size, layout="", checkpoint="off"):
    """Our ranks of the bare script, with lumi_moai as `submit` gives it to them."""
    run = folder / f"run-{count}-{size}-{layout}-{checkpoint}"
    for part in ("code", "lib"):
        (run / part).mkdir(parents=True)
    copy_library(RunFolder(run))
    wishes = Wishes(mode="auto", layout=Layout.parse(layout), self_check=False, checkpoint=checkpoint)
    job = {"launch": launch(count).as_json(), "parallel": wishes.as_json()}
    (run / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "lumi_moai.runtime", "--run", str(run), "--", str(SCRIPTS / "bare.py")]
    path = f"{RunFolder(run).lib / 'lumi_moai.zip'}:{SCRIPTS}"
    return Ranks([command] * count, [{**each, "PYTHONPATH": path} for each in submitit(count)], size, run)


def by_hand(script, count, size):
    """The ranks of a script that speaks torch.distributed itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environments = [
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
         "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(count), "ACCELERATE_USE_CPU": "true"} for rank in range(count)
    ]  # fmt: skip
    return Ranks([[sys.executable, str(SCRIPTS / script)]] * count, environments, size)


@contextmanager
def side_by_side(*runs):
    try:
        yield runs
    finally:
        for run in runs:
            run.end()


def by_turns(runs, *, seconds, after=lambda: None):
    """What each turn of a few steps took of every run, one after the other, for about *seconds*; *after* is called then.

    Each goes first as often as the others: who comes after a rest of the machine has it easier.
    """
    for run in runs:
        run.turn(5)  # warm
    after()
    began, taken = time.monotonic(), []
    while len(taken) < LEAST_TURNS or time.monotonic() - began < seconds:
        first = len(taken) % len(runs)
        order = [*runs[first:], *runs[:first]]
        times = {run: run.turn(STEPS) for run in order}
        taken.append([times[run] for run in runs])
        after()
    return taken


def ratios(taken, mine, theirs):
    """Their seconds over ours, the median over turns: by the clock, and of the CPU."""
    return tuple(statistics.median(turn[theirs][kind] / turn[mine][kind] for turn in taken) for kind in (0, 1))


def beside_peers(folder, count, layout, peers):
    """Our steps per second over those of each peer."""
    taken = []
    for number in range(ROUNDS):
        mine = ours(folder / f"{layout}-{number}", count, "large", layout)
        with side_by_side(mine, *(by_hand(peer, count, "large") for peer, _ in peers)) as runs:
            taken += by_turns(runs, seconds=SECONDS * len(peers) / ROUNDS)
    for place, (peer, bound) in enumerate(peers, start=1):
        wall, cpu = ratios(taken, 0, place)
        yield f"our tokens/s / those of {peer}, {count} rank(s), {len(taken)} turns", wall, ("at least", bound)
        yield f"the same in tokens per CPU second, {peer}", cpu, ("no bound", 0)


def micro_batches(folder):
    """What it costs to compute a batch in two pieces, where one would fit."""
    whole, cut = (ours(folder, 1, "large", layout) for layout in ("", "micro_batches=2"))
    with side_by_side(cut, whole) as runs:
        wall, _ = ratios(by_turns(runs, seconds=SECONDS / 2), 0, 1)
    yield "tokens/s in 2 micro-batches / in 1", wall, ("no bound", 0)


def stall(folder):
    """The part of the time that training loses to checkpoints, slower steps while one is written included."""
    runs = [ours(folder, 2, "large", "replicate", checkpoint) for checkpoint in (SAVE_SECONDS, "off")]
    saved = []

    def look():
        names = {path.name for path in (runs[0].folder / "checkpoints").glob("step-*[0-9]")}
        saved.append(len(names - set().union(*seen)))
        seen.append(names)

    seen = []
    with side_by_side(*runs):
        taken = by_turns(runs, seconds=SECONDS / 2, after=look)
    each = statistics.median(saving - plain for (saving, _), (plain, _) in taken) * len(taken) / max(1, sum(saved[1:]))
    yield (
        f"time lost to one of {sum(saved[1:])} checkpoints / time between two",
        each / FIRST_SECONDS,
        ("at most", 0.03),
    )


def started(run):
    """Seconds until every rank of *run*, which is given as a function, stands before its first step; CPU seconds a rank."""
    began = time.perf_counter()
    ranks = run()
    took = time.perf_counter() - began
    ranks.end()
    return took, ranks.cpu / len(ranks.processes)


def _pair(folder, *, ours_first):
    mine, bare = partial(ours, folder, 4, "small"), partial(by_hand, "bare.py", 4, "small")
    return (started(mine), started(bare)) if ours_first else (started(bare), started(mine))[::-1]


def start_up(folder):
    """How much longer our start of 4 ranks takes than 4 bare scripts started at once: the median of pairs."""
    pairs = [_pair(folder / f"start-{turn}", ours_first=turn % 2 == 0) for turn in range(STARTS)]
    wall, cpu = (statistics.median(mine[kind] - theirs[kind] for mine, theirs in pairs) for kind in (0, 1))
    yield "seconds to start 4 ranks, more than of the bare script", wall, ("at most", 1.0)
    yield "CPU seconds of one rank's start, more than of the bare script", cpu, ("no bound", 0)


def figures(folder):
    yield from beside_peers(folder, 2, "replicate", (("ddp.py", 0.98), ("accelerated.py", 1.0)))
    yield from beside_peers(folder, 2, "fsdp", (("fsdp2.py", 0.98),))
    yield from beside_peers(folder, 1, "", (("bare.py", 0.99),))  # on the CPU, where there is no device
    yield from micro_batches(folder / "micro")
    yield from stall(folder / "stall")
    yield from start_up(folder)


if __name__ == "__main__":  # one pair, for looking closer: training.py ddp.py 2 small "" 20
    import tempfile

    peer, count, size, layout, seconds = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        with side_by_side(ours(Path(name), int(count), size, layout), by_hand(peer, int(count), size)) as pair:
            taken = by_turns(pair, seconds=float(seconds))
        quarts = statistics.quantiles(theirs[0] / mine[0] for mine, theirs in taken)
        wall, cpu = ratios(taken, 0, 1)
        print(f"{peer} {count} {size}: wall {wall:.3f} cpu {cpu:.3f}  quartiles {quarts[0]:.3f} {quarts[2]:.3f}")
