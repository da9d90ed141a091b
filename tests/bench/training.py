"""What the runtime costs: our run of a bare script beside the same training written by hand, turn by turn."""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

SCRIPTS = Path(__file__).parent / "scripts"
sys.path.insert(0, str(SCRIPTS.parent.parent))
from runtime_ranks import launch, submitit  # noqa: E402

from lumi_moai.plan import Layout, Wishes  # noqa: E402

# words, width, blocks, length, global batch
SIZES = {"large": "4096,256,8,64,16", "small": "256,64,4,32,8"}


class Ranks:
    """The processes of one run, which wait for their turn."""

    def __init__(self, commands, environments, size):
        self.pipes, self.processes = [], []
        for command, environment in zip(commands, environments, strict=True):
            mine, theirs = os.pipe()
            given = {**os.environ, **environment, "BENCH_SIZES": SIZES[size], "BENCH_PIPE": str(theirs), "PYTHONPATH":
                     f"{SCRIPTS}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}  # fmt: skip
            process = subprocess.Popen(
                command, env=given, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[theirs], text=True,
                stderr=None if os.environ.get("BENCH_LOUD") else subprocess.DEVNULL,
            )  # fmt: skip
            os.close(theirs)
            self.processes.append(process)
            self.pipes.append(os.fdopen(mine))
        self._answers()

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


def ours(folder, count, size, layout=""):
    """Our ranks of the bare script."""
    run = folder / f"run-{count}-{size}-{layout}"
    (run / "code").mkdir(parents=True)
    wishes = Wishes(mode="auto", layout=Layout.parse(layout), self_check=False, checkpoint="off")
    job = {"launch": launch(count).as_json(), "parallel": wishes.as_json()}
    (run / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-m", "lumi_moai.runtime", "--run", str(run), "--", str(SCRIPTS / "bare.py")]
    return Ranks([command] * count, submitit(count), size)


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
def side_by_side(mine, theirs):
    try:
        yield mine, theirs
    finally:
        mine.end()
        theirs.end()


def speed(mine, theirs, *, turns, steps):
    """Our steps per second over theirs: the median over *turns* pairs of turns; then the same for CPU seconds."""
    for run in (mine, theirs):
        run.turn(5)  # warm
    walls, cpus = [], []
    for turn in range(turns):
        order = (mine, theirs) if turn % 2 else (theirs, mine)
        taken = {run: run.turn(steps) for run in order}
        (wall, cpu), (their_wall, their_cpu) = taken[mine], taken[theirs]
        walls.append(their_wall / wall)
        cpus.append(their_cpu / cpu)
    return statistics.median(walls), statistics.median(cpus), walls


def started(ranks_of, *args):
    """Seconds until every rank of a run stands before its first step."""
    began = time.perf_counter()
    run = ranks_of(*args)
    took = time.perf_counter() - began
    run.end()
    return took


def start_up(folder, turns=3):
    """Seconds that our start of 4 ranks takes more than 4 bare scripts started at once: the median of pairs."""
    more = [
        started(ours, folder / f"start-{turn}", 4, "small") - started(by_hand, "bare.py", 4, "small")
        for turn in range(turns)
    ]
    return statistics.median(more)


PEERS = (
    # peer, ranks, our layout, at least
    ("ddp.py", 2, "replicate", 0.98),
    ("accelerated.py", 2, "replicate", 1.0),
    ("fsdp2.py", 2, "fsdp", 0.98),
    ("bare.py", 1, "", 0.99),  # on the CPU, where there is no device
)


def figures(folder):
    for peer, count, layout, bound in PEERS:
        with side_by_side(ours(folder / peer, count, "large", layout), by_hand(peer, count, "large")) as pair:
            wall, cpu, _ = speed(*pair, turns=40, steps=3)
        yield f"our tokens/s / those of {peer}, {count} rank(s)", wall, ("at least", bound)
        yield f"the same in tokens per CPU second, {peer}", cpu, ("no bound", 0)
    yield "seconds to start 4 ranks, more than of the bare script", start_up(folder), ("at most", 1.0)


if __name__ == "__main__":  # one pair, for looking closer: training.py ddp.py 2 small "" 20 10
    import tempfile

    peer, count, size, layout, turns, steps = sys.argv[1:]
    with (
        tempfile.TemporaryDirectory() as name,
        side_by_side(ours(Path(name), int(count), size, layout), by_hand(peer, int(count), size)) as pair,
    ):
        wall, cpu, walls = speed(*pair, turns=int(turns), steps=int(steps))
        quart = statistics.quantiles(walls)
        print(f"{peer} {count} {size}: wall {wall:.3f} cpu {cpu:.3f}  quartiles {quart[0]:.3f} {quart[2]:.3f}")
