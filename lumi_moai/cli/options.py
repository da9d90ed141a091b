"""The options that `submit` and `render` share."""

from collections.abc import Callable
from typing import Any

import click

Command = Callable[..., Any]

# Everything after the script's name belongs to the script.
OWN_ARGUMENTS = {"allow_interspersed_args": False, "ignore_unknown_options": False}


def _pairs(_ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """NAME=VALUE words as a mapping; for sbatch a bare OPTION is a switch."""
    pairs = {}
    for word in values:
        name, equals, value = word.partition("=")
        if not equals and param.name == "env":
            raise click.BadParameter(f"{word!r} has no =; write NAME=VALUE")
        pairs[name] = value
    return pairs


_OPTIONS = (
    click.option("--flavor", "-f", metavar="FLAVOR", help="Size of the accelerator: 8xLarge, 10 or 8xLarge.4096GB."),
    click.option("--site", metavar="SITE", help="Cluster; by default the one this machine belongs to, else `local`."),
    click.option("--account", "-A", metavar="PROJECT", help="Project to bill; else $SBATCH_ACCOUNT or a config file."),
    click.option("--partition", "-p", metavar="NAME", help="Queue; by default the flavor chooses it."),
    click.option("--time", "-t", metavar="TIME", help="Time limit: 90m, 12:00:00, 1-00:00:00."),
    click.option("--job-name", "-J", "name", metavar="NAME", help="Name of the job; by default the script's."),
    click.option("--env", callback=_pairs, help="Variable for the job; may be given several times.", multiple=True,
                 metavar="NAME=VALUE"),
    click.option("--container", metavar="NAME|none", help="Image to run in, or this machine's own Python."),
    click.option("--launcher", metavar="srun|torchrun", help="One task per device, or one per node."),
    click.option("--binding", metavar="strict|warn", help="Stop, or only warn, when a rank sits away from its device."),
    click.option("--parallel", metavar="line|auto|script", help="Parallelise scripts with the one line, every"
                 " script, or none, because it is distributed already."),
    click.option("--layout", metavar="WORDS", help="How the model lies on the devices: auto, replicate, fsdp,"
                 " zero2, hsdp, tp=2, pp=4, recompute=full, micro_batches=4, bf16, offload, compile; with commas."),
    click.option("--self-check", metavar="on|off", help="Compare the first step on all devices with one device."),
    click.option("--checkpoint", metavar="auto|off|SECONDS", help="How often the training is saved for a requeue."),
    click.option("--keep", metavar="N", help="How many of these checkpoints stay; 2 by default."),
    click.option("--array", metavar="INDICES", help="Run the script once per index: 0-9, 1,3,5 or 0-99%10."),
    click.option("--sbatch", callback=_pairs, help="Any further sbatch option, as qos=NAME.", multiple=True,
                 metavar="OPTION[=VALUE]"),
    click.option("--include", multiple=True, metavar="PATH", help="Take this along, besides what git tracks."),
    click.option("--runs", metavar="FOLDER", help="Where run folders are made; by default ./lumi-moai-runs."),
)  # fmt: skip


def job_options(command: Command, *, required: bool = True) -> Command:
    """Give *command* all options of a job, and the script with its arguments."""
    command = click.argument(
        "command", nargs=-1, required=required, type=click.UNPROCESSED, metavar="SCRIPT [ARGUMENTS]..."
    )(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def prepared(command: tuple[str, ...], options: dict[str, Any], resume: str | None = None) -> Any:
    """`launch.prepare.Prepared` of the words on the command line; *resume* names an earlier run."""
    from ..launch.prepare import prepare

    words = dict(options)
    name, array, include = words.pop("name"), words.pop("array"), words.pop("include")
    if resume is None:
        return prepare(command, words, name=name, array=array, include=include)
    if array or include:
        raise click.UsageError("--resume goes on with one run and its own code; leave --array and --include out")
    from ..launch.earlier import earlier

    return prepare((*command,), words, name=name, earlier=earlier(resume))
