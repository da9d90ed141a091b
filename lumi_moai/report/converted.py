"""A converted batch script for people and machines, and its project file."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from ..check.convert import Converted
from .text import count

_WIDTH = 12


def project_file(found: Converted, path: str) -> str:
    """The text of the project file; every value is quoted as JSON does, which YAML reads as it is."""
    lines = [f"# made from {json.dumps(path, ensure_ascii=True)} by `lumi-moai import`"]
    lines += [f"{name}: {json.dumps(value)}" for name, value in found.settings.items()]
    for name, pairs in (("env", found.env), ("sbatch", found.sbatch)):
        lines += [f"{name}:"] * bool(pairs) + [
            f"  {json.dumps(key)}: {json.dumps(text)}" for key, text in pairs.items()
        ]
    return "".join(f"{line}\n" for line in lines)


def as_text(found: Converted, path: str) -> str:
    """*found* in lines of text."""
    return "".join(f"{word:<{_WIDTH}}{text}\n" for word, text in _lines(found, path))


def _lines(found: Converted, path: str) -> Iterator[tuple[str, str]]:
    placed = found.placement
    yield (
        "Flavor",
        (
            f"{placed.flavor.name}: {count(placed.devices, 'device')} on {count(placed.nodes, 'node')},"
            f" partition {placed.partition.name}"
        ),
    )
    yield "Settings", f"lumi-moai.yaml beside {found.command[0]}:"
    yield from (("", line) for line in project_file(found, path).splitlines())
    yield "Submit", shlex.join(found.submit)
    for number, sentence in enumerate(found.differences):
        yield "Differs" if number == 0 else "", sentence


def as_dict(found: Converted, path: str) -> dict[str, Any]:
    """The JSON object of *found*."""
    placed = found.placement
    return {
        "flavor": placed.flavor.name,
        "devices": placed.devices,
        "nodes": placed.nodes,
        "partition": placed.partition.name,
        "settings": {**found.settings, "env": found.env, "sbatch": found.sbatch},
        "project_file": project_file(found, path),
        "submit": list(found.submit),
        "differences": list(found.differences),
    }
