"""The user's settings in layers, later wins: bundled, user file, project file, environment, command line."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any

from ..errors import ConfigError, did_you_mean
from ..site import Recognise, Site
from ..slurm import cluster_name
from . import sites
from .decode import Mistakes, decode
from .yaml import read

PROJECT_FILE = "lumi-moai.yaml"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One setting: its default, the environment variables that set it, and what it is for."""

    name: str
    help: str
    default: str | None = None
    variables: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    mapping: bool = False
    """A mapping merges over the layers instead of being replaced."""

    @property
    def all_variables(self) -> tuple[str, ...]:
        """Environment variables, the strongest first."""
        return (f"LUMI_MOAI_{self.name.upper()}", *self.variables)


KEYS = (
    Key(name="site", help="Cluster; by default the one that this machine belongs to, else `local`."),
    Key(name="account", help="Project to bill.", variables=("SBATCH_ACCOUNT",)),
    Key(name="flavor", help="Flavor; by default the one chosen with `switch-model`."),
    Key(name="partition", help="Queue; by default the flavor chooses it."),
    Key(name="time", help="Time limit; by default the site's."),
    Key(name="container", help="Image to run in, or `none` for this machine's Python; by default the site's."),
    Key(name="launcher", help="How ranks start.", default="srun", choices=("srun", "torchrun")),
    Key(name="binding", help="What happens when a rank sits wrong.", default="strict", choices=("strict", "warn")),
    Key(name="runs", help="Folder in which run folders are made.", default="lumi-moai-runs"),
    Key(
        name="parallel",
        help="Which scripts are parallelised: those with the one `line`, every script (`auto`), or none "
        "(`script`: it is distributed already).",
        default="line",
        choices=("line", "auto", "script"),
    ),
    Key(
        name="layout",
        help="How the model is laid out over the devices: fsdp, tp=2, recompute=full and their kind.",
        default="auto",
    ),
    Key(
        name="self_check",
        help="Compare the first step on all devices with one device.",
        default="on",
        choices=("on", "off"),
    ),
    Key(name="checkpoint", help="Seconds between checkpoints, `auto` or `off`.", default="auto"),
    Key(name="keep", help="How many checkpoints stay.", default="2"),
    Key(name="env", help="Environment variables of the job.", mapping=True),
    Key(name="sbatch", help="Further sbatch options.", mapping=True),
)
_BY_NAME = {key.name: key for key in KEYS}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A value and where it came from."""

    value: Any
    origin: str


def settings(given: Mapping[str, Any], *, beside: Path | None = None) -> dict[str, Setting]:
    """Every setting that has a value. *given* is the command line; *beside* is the folder of the user's script.

    Raises ConfigError with all mistakes of a settings file, or for a value that is not among the choices.
    """
    user, project = sites.user_folder() / "config.yaml", (beside or Path()) / PROJECT_FILE
    layers = [
        ("bundled", {key.name: key.default for key in KEYS if key.default is not None}),
        (f"user file {user}", _file(user)),
        (f"project file {project}", _file(project)),
        *((f"environment {name}", {key.name: os.environ[name]}) for key in KEYS for name in _set_variables(key)),
        ("command line", {name: value for name, value in given.items() if value not in (None, (), {})}),
    ]
    found: dict[str, Setting] = {}
    for origin, values in layers:
        for name, value in values.items():
            found[name] = _layered(_BY_NAME[name], found.get(name), value, origin)
    return found


def _set_variables(key: Key) -> list[str]:
    """The variables of *key* that are set, the weakest first, so that the strongest is applied last."""
    return [] if key.mapping else [name for name in reversed(key.all_variables) if os.environ.get(name)]


def _layered(key: Key, below: Setting | None, value: Any, origin: str) -> Setting:
    if key.choices and value not in key.choices:
        raise ConfigError(
            f"{origin}: {key.name} {value!r} is none of {', '.join(key.choices)}{did_you_mean(str(value), key.choices)}"
        )
    if not key.mapping:
        return Setting(value=value, origin=origin)
    merged = {**(below.value if below else {}), **{name: (text, origin) for name, text in value.items()}}
    return Setting(value=merged, origin=origin)


def _file(path: Path) -> dict[str, Any]:
    """The settings in the file at *path*, nothing when there is none."""
    if not path.is_file():
        return {}
    mistakes = Mistakes()
    raw = read(path) or {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: it should be a mapping of settings to values")
    values = {}
    for name, value in raw.items():
        if name not in _BY_NAME:
            mistakes.note("", f"unknown setting {name!r}{did_you_mean(str(name), _BY_NAME)}")
            continue
        values[name] = decode(Mapping[str, str] if _BY_NAME[name].mapping else str, value, name, mistakes)
    if mistakes:
        raise ConfigError(*(f"{path}: {mistake}" for mistake in mistakes))
    return values


def resolve_site(name: str | None = None) -> Site:
    """The site called *name*; without a name the one in the settings, else the one this host belongs to, else `local`.

    Raises RequestError for a name that nobody knows, ConfigError for a broken file.
    """
    chosen = name or getattr(settings({}).get("site"), "value", None)
    return sites.site(chosen or recognised() or "local")


def recognised() -> str | None:
    """The site that this host belongs to, by what the site files say of their hosts; None when no file fits."""
    rules = {name: _recognise(name) for name in sites.site_names()}
    cluster = cluster_name() if which("scontrol") and any(rule.cluster for rule in rules.values()) else None
    return next((name for name, rule in rules.items() if _fits(rule, cluster)), None)


def _recognise(name: str) -> Recognise:
    """Only the `recognise` part of a site file, so that a mistake elsewhere in a file that nobody uses does no harm."""
    path = sites.first("sites", name)
    raw = read(path) if path else None
    part = raw.get("recognise", {}) if isinstance(raw, dict) else {}
    mistakes = Mistakes()
    rule = decode(Recognise, part, "recognise", mistakes)
    return Recognise() if mistakes else rule


def _fits(rule: Recognise, cluster: str | None) -> bool:
    return (
        (rule.cluster is not None and rule.cluster == cluster)
        or any(os.environ.get(name) == value for name, value in rule.environment.items())
        or (rule.file is not None and Path(rule.file).exists())
    )
