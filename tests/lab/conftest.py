"""Fixtures that run the real product on real Slurm: a cluster of 16 nodes, and one LUMI-G node in a machine of its own.

`cluster`    one for the whole session; `cluster.run("sbatch", "job.sh", cwd=...)` or `env=cluster.env`.
`node`       what the module's NODE_SCRIPT (bash text) left behind. The scripts of all modules run in one guest boot,
             beside the tests that do not ask for it;
             NODE_VISIBLE, a list of folders, must be visible in it; NODE_SECONDS is how long the script may take.

Without root or the packages (see install.sh) the tests are skipped with a reason, and fail with it where
LUMI_MOAI_REQUIRE_LAB=1. LUMI_MOAI_LAB=folder uses a cluster that is already up, and leaves it up.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest

HERE = Path(__file__).resolve().parent
CLUSTER_TOOLS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd")
NODE_TOOLS = ("qemu-system-x86_64", "busybox", "cpio", "modprobe", "munged", "slurmctld", "slurmd")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UNTESTED: set[str] = set()


@dataclass(frozen=True)
class Cluster:
    folder: Path
    env: Mapping[str, str]

    def run(self, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
        """The command in the lab's environment, output captured; a failure raises unless check=False."""
        given = {"env": dict(self.env), "text": True, "capture_output": True, "check": True, **options}
        return subprocess.run([str(w) for w in words], **given)


@dataclass(frozen=True)
class NodeRun:
    console: str
    out: Path
    code: int


# ---- can there be a lab? ------------------------------------------------------------------------------------------


def missing(tools: Sequence[str]) -> str:
    """Why there can be no lab, or nothing."""
    if os.geteuid() != 0:
        return "The lab needs root, and this is not root."
    path = os.environ.get("PATH", "") + ":" + SYSTEM_PATH
    absent = [tool for tool in tools if not shutil.which(tool, path=path)]
    return f"The lab needs {', '.join(absent)}: run tests/lab/install.sh as root." if absent else ""


def require(tools: Sequence[str]) -> None:
    reason = missing(tools)
    if reason and os.environ.get("LUMI_MOAI_REQUIRE_LAB") == "1":
        pytest.fail(reason + " LUMI_MOAI_REQUIRE_LAB=1 does not allow to skip.", pytrace=False)
    if reason:
        UNTESTED.add(reason)
        pytest.skip(reason)


def pytest_terminal_summary(terminalreporter) -> None:
    """Say it aloud: pytest tells the reasons of skipped tests only when asked."""
    for reason in sorted(UNTESTED):
        terminalreporter.write_line(f"NOT TESTED ON REAL SLURM. {reason}", yellow=True, bold=True)


def clean_env(**more: str) -> dict[str, str]:
    """Our environment without what would steer Slurm from outside, this Python's commands first on PATH."""
    env = {k: v for k, v in os.environ.items() if not re.match(r"(SLURM|SBATCH|SQUEUE|SACCT|SRUN|SALLOC)_", k)}
    path = f"{Path(sys.executable).parent}:{env.get('PATH', '')}:{SYSTEM_PATH}"
    return {**env, "PATH": path, **more}


# ---- the cluster --------------------------------------------------------------------------------------------------


def cluster_sh(verb: str, folder: Path) -> None:
    done = subprocess.run(
        ["bash", str(HERE / "cluster.sh"), verb],
        env=clean_env(LAB=str(folder)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )
    if done.returncode:
        raise RuntimeError(f"'cluster.sh {verb}' failed in {folder}: {done.stdout.strip()}")


def sweep(parent: Path) -> None:
    """Take down the labs of sessions that were killed: their folder carries the number of a process that is gone."""
    for folder in parent.glob("lumi-moai-lab-*"):
        owner = folder.name.rpartition("-")[2]
        if owner.isdigit() and not Path("/proc", owner).exists():
            cluster_sh("down", folder)


def as_cluster(folder: Path) -> Cluster:
    return Cluster(folder, MappingProxyType(clean_env(SLURM_CONF=str(folder / "slurm.conf"))))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    running = os.environ.get("LUMI_MOAI_LAB")
    if running:
        yield as_cluster(Path(running))
        return
    require(CLUSTER_TOOLS)
    parent = Path(tempfile.gettempdir())
    sweep(parent)
    folder = parent / f"lumi-moai-lab-{os.getpid()}"
    try:
        cluster_sh("up", folder)
        yield as_cluster(folder)
    finally:
        cluster_sh("down", folder)


# ---- the node -----------------------------------------------------------------------------------------------------


@contextmanager
def booted(script: str, out: Path, visible: Sequence[str] = (), seconds: int = 300) -> Iterator[Callable[[], NodeRun]]:
    """A guest that runs *script* meanwhile; the function waits for its end."""
    out.mkdir(parents=True, exist_ok=True)
    text, console = out / "script.sh", out / "guest-console"
    text.write_text(script)
    asked = clean_env(NODE_OUT=str(out), NODE_VISIBLE=":".join(str(v) for v in visible), NODE_S=str(seconds))
    command = ["bash", str(HERE / "node.sh"), str(text)]
    with console.open("w") as lines:
        guest = subprocess.Popen(command, env=asked, stdout=lines, stderr=lines, start_new_session=True)
    ends = time.monotonic() + seconds + 300  # the first boot fetches a kernel, which counts extra

    def ended() -> NodeRun:
        code = guest.wait(timeout=max(0.0, ends - time.monotonic()))
        said = console.read_text(errors="replace")
        if "NODE DONE" not in said:
            raise RuntimeError(f"The guest did not come to the end of its script:\n{said}")
        return NodeRun(said, out, code)

    try:
        yield ended
    finally:
        if guest.poll() is None:
            os.killpg(guest.pid, signal.SIGKILL)


NODE_SECONDS = 240


def seconds_of(module: object) -> int:
    return getattr(module, "NODE_SECONDS", NODE_SECONDS)


def one_after_the_other(scripts: Mapping[str, tuple[str, int]]) -> str:
    """Each script in an output folder of its own; what it leaves running or queued ends before the next one."""
    return "\n".join(
        f"mkdir -p $NODE_OUT/{name}; cd $NODE_OUT/{name}\n"
        f"NODE_OUT=$NODE_OUT/{name} timeout {seconds} bash -c {shlex.quote(text)} >console 2>&1 </dev/null; echo $? >code\n"
        "scancel -u root; while squeue -h | grep -q .; do sleep 0.3; done"
        for name, (text, seconds) in scripts.items()
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The guest, which needs one core for minutes, boots first and is asked last."""
    items.sort(key=asks_the_node)


def asks_the_node(item: pytest.Item) -> bool:
    return "node" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def guest(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest):
    """The only boot of the session, under way beside the tests that do not ask it; None where none does."""
    asking = {item.module.__name__: item.module for item in request.session.items if asks_the_node(item)}
    if not asking or missing(NODE_TOOLS):
        yield None
        return
    visible = sorted({str(v) for module in asking.values() for v in getattr(module, "NODE_VISIBLE", ())})
    script = one_after_the_other({name: (module.NODE_SCRIPT, seconds_of(module)) for name, module in asking.items()})
    seconds = 60 + sum(map(seconds_of, asking.values()))
    with booted(script, tmp_path_factory.mktemp("node"), visible, seconds) as ended:
        yield cache(ended)


@pytest.fixture(scope="session")
def node_boot(guest) -> Path:
    """The folder with one folder a module."""
    require(NODE_TOOLS)
    return guest().out


@pytest.fixture(scope="module")
def node(node_boot: Path, request: pytest.FixtureRequest) -> NodeRun:
    out = node_boot / request.module.__name__
    return NodeRun((out / "console").read_text(), out, int((out / "code").read_text()))
