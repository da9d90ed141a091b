"""The Python program behind python, torchrun, `accelerate launch` or deepspeed, and what the launcher's options say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .case import Case, is_torchrun
from .script import Command
from .value import holes, shown

_MODULES = ("-m", "--module")
_FLAGS = {
    "torchrun": frozenset(("--standalone", "--no-python", "--run-path", "--use-env", "-h", "--help")),
    "accelerate": frozenset((
        "--cpu", "--multi-gpu", "--tpu", "--ipex", "--use-mps-device", "--use-deepspeed", "--use-fsdp", "--use-xpu",
        "--use-megatron-lm", "--use-parallelism-config", "--use-tp", "--quiet", "-q", "--debug", "--no-python",
        "--same-network", "--tpu-use-sudo", "--tpu-use-cluster", "--no-tpu-cluster", "--standalone",
        "--enable-cpu-affinity", "--dynamo-use-fullgraph", "--dynamo-use-dynamic", "-h", "--help",
    )),
    "deepspeed": frozenset((
        "--no-python", "--no-ssh", "--no-ssh-check", "--no-local-rank", "--force-multi", "--save-pid",
        "--bind-cores-to-rank", "--elastic-training", "-h", "--help",
    )),
}  # fmt: skip
"""Options without a value, by launcher."""
_LAYOUT = re.compile(
    r"-H|--(num-(processes|machines|nodes|gpus|cpu-threads-per-process)|machine-rank|main-process-(ip|port)|rdzv-\w+"
    r"|max-restarts|monitor-interval|multi-gpu|same-network|gpu-ids|master-(addr|port)|hostfile|node-rank|no-ssh\S*"
    r"|launcher|launcher-args|nnodes|nproc-per-node|standalone|role|tee|log-dir|redirects|start-method|local-addr|quiet"
    r"|no-local-rank|save-pid|force-multi|bind-core\S*|ssh-port)"
)
"""Options that say who runs where, which lumi-moai decides."""


# Programs that are a Python module under another name, by their first words; they start ranks by themselves otherwise.
_CONSOLE = {("axolotl", "train"): "axolotl.cli.train", ("litgpt",): "litgpt"}


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A Python program as a batch script starts it."""

    command: Command
    launcher: str
    """One of `python`, `torchrun`, `accelerate`, `deepspeed`, or a program that starts ranks by itself."""
    program: str
    """The file, or the name of the module."""
    module: bool
    arguments: tuple[str, ...]
    options: tuple[str, ...] = ()
    """The launcher's options that say more than who runs where, as they are written."""

    def option(self, name: str) -> str | None:
        """The value of the launcher's option *name*, written with dashes."""
        for one in self.options:
            written, _, value = one.replace(" ", "=", 1).partition("=")
            if written.replace("_", "-") == name:
                return value
        return None


def launched(command: Command) -> Launched | None:
    """The Python program that *command* starts; None when it starts none that can be seen."""
    texts = [shown(word.raw.strip('"') if "unread" in holes(word.text) else word.text) for word in command.words]
    for names, found in _CONSOLE.items():
        if (command.name, *texts[1 : len(names)]) == names and len(texts) > len(names):
            return Launched(
                command=command, launcher=names[0], program=found, module=True, arguments=tuple(texts[len(names) :])
            )
    launcher, at = _launcher(command, texts)
    if launcher is None:
        return None
    end, module, own = _past(texts, at, launcher)
    if end >= len(texts) or not (module or texts[end].endswith(".py")):
        return None
    return Launched(
        command=command, launcher=launcher, program=texts[end], module=module, arguments=tuple(texts[end + 1 :]),
        options=tuple(own),
    )  # fmt: skip


def _launcher(command: Command, texts: Sequence[str]) -> tuple[str | None, int]:
    """The launcher in *texts* and where its options begin."""
    after = texts.index("-m") + 2 if "-m" in texts else 0
    module = texts[after - 1] if 0 < after <= len(texts) else ""
    if is_torchrun(command):
        return "torchrun", 1 if command.name == "torchrun" else after
    if command.name == "accelerate":
        return ("accelerate", 2) if texts[1:2] == ["launch"] else (None, 0)
    if command.name in ("accelerate-launch", "deepspeed"):
        return command.name.partition("-")[0], 1
    if re.fullmatch(r"python[\d.]*", command.name):
        started = {"accelerate.commands.launch": "accelerate", "deepspeed.launcher.runner": "deepspeed"}.get(module)
        return (started, after) if started else ("python", 1)
    return None, 0


def _past(texts: Sequence[str], at: int, launcher: str) -> tuple[int, bool, list[str]]:
    """Where the program stands, whether it is a module, and the launcher's options that count."""
    module, own = False, []
    while at < len(texts) and texts[at].startswith("-"):
        name, equals, _ = texts[at].partition("=")
        name = name.replace("_", "-")
        if name in _MODULES:
            module, at = True, at + 1
            if launcher == "python":
                break
            continue
        if launcher == "python" and name == "-c":
            return len(texts), False, []
        alone = bool(equals) or (name not in ("-W", "-X") if launcher == "python" else name in _FLAGS[launcher])
        if not _LAYOUT.fullmatch(name) and launcher in ("accelerate", "deepspeed"):
            own.append(" ".join(texts[at : at + (1 if alone else 2)]))
        at += 1 if alone else 2
    return at, module, own


def programs(case: Case) -> list[Launched]:
    """The Python programs that the script starts, in its order."""
    training, console = set(case.training()), {names[0] for names in _CONSOLE}
    commands = [one for one in case.script.commands if one in training or one.name in console]
    return [found for command in commands if (found := launched(command))]
