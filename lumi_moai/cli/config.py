"""`lumi-moai config`: every setting and where it comes from."""

from pathlib import Path

import click

from .show import json_option, show_json, show_table


@click.command()
@click.option(
    "--beside", type=click.Path(path_type=Path), metavar="SCRIPT", help="As for this script: its project file counts."
)
@json_option
def config(beside: Path | None, as_json: bool) -> None:
    """Show each setting, its value and where it comes from. Later layers win.

    The layers: bundled, ~/.config/lumi-moai/config.yaml, lumi-moai.yaml beside the script, environment, command line.
    """
    from ..catalog.settings import KEYS, Setting, settings

    folder = None if beside is None else (beside if beside.is_dir() else beside.parent)
    found = settings({}, beside=folder)
    nothing = Setting(value=None, origin="not set")
    rows = [(key.name, found.get(key.name, nothing), key) for key in KEYS]
    if as_json:
        show_json({name: {"value": _plain(s.value), "origin": _origin(s.value, s.origin)} for name, s, _ in rows})
        return
    show_table(
        ("SETTING", "VALUE", "ORIGIN", "MEANING"),
        [(name, _shown(s.value), _origin(s.value, s.origin), key.help) for name, s, key in rows],
    )


def _plain(value: object) -> object:
    return {name: text for name, (text, _) in value.items()} if isinstance(value, dict) else value


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={text}" for name, (text, _) in value.items()) or "-"
    return "-" if value is None else str(value)


def _origin(value: object, origin: str) -> str:
    """A mapping's parts may come from several layers."""
    return ", ".join(dict.fromkeys(place for _, place in value.values())) if isinstance(value, dict) else origin
