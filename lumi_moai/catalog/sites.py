"""Sites, devices and flavors: the user's own folders first, the bundled ones last."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import ConfigError, RequestError, did_you_mean
from ..flavor import Flavor
from ..resources import root
from ..site import Device, Site
from .decode import Mistakes, decode
from .yaml import read


@dataclass(frozen=True, kw_only=True)
class _Menu:
    flavors: tuple[Flavor, ...]


def folders(kind: str) -> list[Path]:
    """Where files of *kind* (`sites`, `devices`, `flavors`, `templates`) are looked for, first hit wins.

    `$LUMI_MOAI_PATH` (folders apart by `:`), the user's folder, then what came with lumi-moai.
    """
    own = [Path(part) for part in os.environ.get("LUMI_MOAI_PATH", "").split(":") if part]
    bundled = root("templates") if kind == "templates" else root("configs") / kind
    return [*(folder / kind for folder in [*own, user_folder()]), bundled]


def user_folder() -> Path:
    """The folder of the user's own files, `~/.config/lumi-moai`."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "lumi-moai"


def site_names() -> list[str]:
    """The names of all sites that can be asked for, the user's own first."""
    found = (path.stem for folder in folders("sites") for path in sorted(folder.glob("*.yaml")))
    return list(dict.fromkeys(found))


def site(name: str) -> Site:
    """The site called *name*, or the one in the file that *name* is a path of.

    Raises RequestError for a name that nobody knows, ConfigError with all mistakes of a file.
    """
    return _site(str(_site_path(name)))


def _site_path(name: str) -> Path:
    if "/" in name or name.endswith(".yaml"):
        return Path(name).expanduser()
    path = first("sites", name)
    if path is None:
        raise RequestError(
            f"there is no site {name!r}{did_you_mean(name, site_names())} (known: {', '.join(site_names())})"
        )
    return path


def first(kind: str, name: str) -> Path | None:
    """The file *name* of *kind* that is found first, None when there is none."""
    return next((path for folder in folders(kind) if (path := folder / f"{name}.yaml").is_file()), None)


@cache
def _site(path: str) -> Site:
    mistakes = Mistakes()
    raw = read(Path(path))
    raw = {"name": Path(path).stem, **raw} if isinstance(raw, dict) else raw
    found = decode(Site, raw, "", mistakes)
    if not mistakes:
        mistakes.extend(_broken_links(found))
    if mistakes:
        raise ConfigError(*(f"{path}: {mistake}" for mistake in mistakes))
    names = {node.device for node in found.nodes.values() if node.device}
    return replace(
        found, devices={name: device(name) for name in sorted(names)}, template_folder=str(Path(path).parent)
    )


def _broken_links(found: Site) -> Iterator[str]:
    """Names in a site file that point at nothing in it."""
    for name, partition in found.partitions.items():
        yield from _missing(f"partitions.{name}.node", partition.node, found.nodes)
        yield from _missing(f"partitions.{name}.billing", partition.billing, found.billing)
    if found.default_container is not None:
        yield from _missing("default_container", found.default_container, found.containers)
    for name, node in found.nodes.items():
        if node.slots and not node.device:
            yield f"nodes.{name}: it has slots but names no device"
        if node.device and first("devices", node.device) is None:
            yield f"nodes.{name}.device: there is no devices/{node.device}.yaml"
        for place, slot in enumerate(node.slots):
            if strange := sorted(set(slot.cores) - set(node.usable_cores)):
                yield f"nodes.{name}.slots[{place}].cores: cores {strange} are not among the usable cores of the node"
    for name, rule in found.billing.items():
        if (rule.per_node is None) == (rule.per_slice is None or rule.slice is None):
            yield f"billing.{name}: give either per_node, or per_slice with slice"


def _missing(key: str, name: str, known: Mapping[str, Any]) -> Iterator[str]:
    if name not in known:
        yield f"{key}: there is no {name!r} in this file{did_you_mean(name, known)}"


@cache
def device(name: str) -> Device:
    """The device called *name* (`configs/devices/`).

    Raises ConfigError with all mistakes of its file.
    """
    path = first("devices", name)
    if path is None:
        raise ConfigError(f"there is no devices/{name}.yaml in {', '.join(map(str, folders('devices')))}")
    raw = read(path)
    return _whole(Device, {"name": name, **raw} if isinstance(raw, dict) else raw, path)


@cache
def flavors() -> tuple[Flavor, ...]:
    """The flavor menu in the order of its numbers."""
    path = first("flavors", "moai")
    if path is None:
        raise ConfigError(f"there is no flavors/moai.yaml in {', '.join(map(str, folders('flavors')))}")
    menu: _Menu = _whole(_Menu, read(path), path)
    return tuple(sorted(menu.flavors, key=lambda flavor: flavor.number))


def _whole(kind: Any, raw: object, path: Path) -> Any:
    mistakes = Mistakes()
    value = decode(kind, raw, "", mistakes)
    if mistakes:
        raise ConfigError(*(f"{path}: {mistake}" for mistake in mistakes))
    return value
