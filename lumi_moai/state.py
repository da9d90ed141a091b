"""What lumi-moai remembers between commands: the flavor that the user chose on each site, in one file."""

import os
from pathlib import Path
from typing import Any

from . import rundir
from .errors import RunError

SCHEMA = 1
_AGAIN = "`lumi-moai switch-model FLAVOR` starts a new one and keeps this one beside it"


def state_file() -> Path:
    """The file that holds the choice, `state.json` in the state folder."""
    return rundir.state_folder() / "state.json"


def chosen(site: str) -> str | None:
    """Name of the flavor chosen on the site called *site*, None when none was.

    Raises RunError when the file cannot be read or is torn.
    """
    return _read(state_file()).get(site)


def choose(site: str, flavor: str) -> Path | None:
    """Remember *flavor* for *site*; the choices on other sites stay.

    A torn file is kept under another name, which is returned; otherwise None. Two writers wait for each other. Raises
    RunError when the file cannot be written.
    """
    path = state_file()
    with rundir.locked(path):
        choices, kept = _read_or_keep_aside(path)
        rundir.write_json(path, {"schema": SCHEMA, "chosen": {**choices, site: flavor}})
    return kept


def _read(path: Path) -> dict[str, str]:
    if not os.path.lexists(path):
        return {}
    try:
        state = rundir.read_json(path)
    except RunError as error:
        raise RunError(f"{error}; {_AGAIN}") from error
    return _choices(path, state.get("chosen"))


def _choices(path: Path, value: Any) -> dict[str, str]:
    if isinstance(value, dict) and all(isinstance(name, str) for name in value.values()):
        return value
    raise RunError(f"{path} does not hold the flavor chosen on each site; {_AGAIN}")


def _read_or_keep_aside(path: Path) -> tuple[dict[str, str], Path | None]:
    """The choices; where they cannot be made out, none, and the name under which the file is kept."""
    try:
        return _read(path), None
    except RunError:
        kept = _free_name(path)
    try:
        os.replace(path, kept)
    except OSError as error:
        raise RunError(f"{path} cannot be read nor moved aside: {error.strerror}") from error
    return {}, kept


def _free_name(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"{path.name}.torn-{number}")).exists():
        number += 1
    return kept
