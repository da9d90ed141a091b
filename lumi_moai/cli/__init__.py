"""The door: words in, words out. Each command lives in its own file, which imports the rooms it needs in its body."""

import sys
from importlib import import_module

import click

from .. import __version__
from ..errors import LumiMoaiError

# One line a command: its file here. The order is the order of `--help`.
COMMANDS = {
    "flavors": "flavors",
    "switch-model": "switch_model",
    "smi": "smi",
    "render": "render",
    "submit": "submit",
    "estimate": "estimate",
    "check": "check",
    "explain": "explain",
    "import": "import_script",
    "status": "status",
    "logs": "logs",
    "wait": "wait",
    "cancel": "cancel",
    "collect": "collect",
    "report": "report",
    "scale": "scale",
    "config": "config",
}


class Door(click.Group):
    """Finds commands by name and turns our own errors into one sentence and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of a user's day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called *cmd_name*; `switch-model` is the function `switch_model` in its file."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f".{COMMANDS[cmd_name]}", __name__)
        return getattr(module, COMMANDS[cmd_name])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple:
        """Click's own, with a nearer word for a command that does not exist."""
        from ..errors import did_you_mean

        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            ctx.fail(f"there is no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; ours are sentences, anything else is a bug and keeps its traceback."""
        try:
            return super().invoke(ctx)
        except LumiMoaiError as error:
            raise click.ClickException(str(error)) from error
        except BrokenPipeError:  # `lumi-moai logs | head`
            sys.stderr.close()
            raise SystemExit(141) from None


@click.group(cls=Door, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lumi-moai")
def main() -> None:
    """Train on LUMI, or any Slurm GPU cluster, as on one large accelerator.

    Choose a flavor, submit a script written for one GPU, and read what it achieved and what it cost.
    """
