"""The checkpoints of a run: RUN/checkpoints/step-N, written beside as step-N.partial and renamed when complete.

A checkpoint is `facts.json`, `journal`, torch's own files (`.metadata`, `__0_0.distcp`) and, last, `manifest.json`,
which has the size of every file and the checksum of the small ones. torch's `.metadata` is a pickle, so a folder that
somebody else could have written is not opened.
"""

import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....errors import RequestError
from ...meeting import write_json

_MANIFEST = "manifest.json"
_SMALL = 2**20
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def partial(folder: Path, step: int) -> Path:
    """Where the checkpoint of *step* is written."""
    return folder / f"step-{step}.partial"


def make(folder: Path, step: int) -> Path:
    """An empty folder for the checkpoint of *step*, for its owner only."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = partial(folder, step)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o700)
    return path


def complete(path: Path, keep: int) -> None:
    """Give the finished checkpoint at *path* its name, and remove all but the last *keep*."""
    for file in _files(path):
        os.chmod(file, 0o600)
    write_json(path / _MANIFEST, {file.name: _print(file) for file in _files(path)})
    done = path.with_suffix("")
    shutil.rmtree(done, ignore_errors=True)
    path.rename(done)
    for old in found(path.parent)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """The checkpoints in *folder*, the newest first, whether good or not."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    steps = sorted((int(match[1]) for name in names if (match := re.fullmatch(r"step-(\d+)", name))), reverse=True)
    return [folder / f"step-{step}" for step in steps]


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest good checkpoint in *folder*, and sentences about those that are torn.

    Raises RequestError when files are somebody else's, or others may write them.
    """
    remarks: list[str] = []
    for path in found(folder):
        _check_owner(folder, path)
        fault = torn(path)
        if fault is None:
            return path, remarks
        remarks.append(f"checkpoint {path} is torn ({fault}), so it is passed over")
    return None, remarks


def torn(path: Path) -> str | None:
    """What is wrong with the checkpoint at *path*; None when it is whole."""
    try:
        manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
        wrong = [name for name, expected in manifest.items() if _print(path / name) != expected]
    except (OSError, ValueError, AttributeError) as error:
        return f"{type(error).__name__} in its manifest or files"
    return f"{wrong[0]} is not as it was written" if wrong else None


def read_facts(path: Path) -> dict[str, Any]:
    """What the checkpoint at *path* says about itself."""
    return json.loads((path / "facts.json").read_text(encoding="utf-8"))


def _files(path: Path) -> Iterator[Path]:
    return (file for file in sorted(path.iterdir()) if file.name != _MANIFEST)


def _print(file: Path) -> list[Any]:
    size = file.stat().st_size
    return [size, hashlib.sha256(file.read_bytes()).hexdigest() if size <= _SMALL else ""]


def _check_owner(folder: Path, path: Path) -> None:
    for each in (folder, path, *path.iterdir()):
        seen = each.lstat()
        if seen.st_uid != os.getuid() or seen.st_mode & _WRITABLE_BY_OTHERS or stat.S_ISLNK(seen.st_mode):
            raise RequestError(
                f"{each} belongs to somebody else, is a link or can be written by others, and reading a checkpoint can"
                " run code; make it yours alone (chmod go-w), or submit with --checkpoint off"
            )


def code(run: Path) -> str:
    """A checksum of the script, its code and its arguments."""
    total = hashlib.sha256(json.dumps(sys.argv[1:]).encode())
    files = {path for path in (run / "code").rglob("*.py")} | {Path(sys.argv[0])}
    for path in sorted(files):
        if path.is_file():
            total.update(path.read_bytes())
    return total.hexdigest()
