"""What a job takes along: the user's code, lumi-moai itself, and a passport that says where the code came from."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType
from typing import cast

from .. import __version__
from ..errors import RequestError, RunError, did_you_mean
from ..rundir import RunFolder, write_json, write_text
from ..site import Container

MAX_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The code to copy: what git tracks below `root`, or the Python files in it, and what was asked for besides."""

    root: Path
    script: Path
    """The user's script, from `root`."""
    included: tuple[Path, ...]
    tracked: bool
    """Whether git tracks what lies in `root`."""

    def files(self) -> tuple[Path, ...]:
        """All files to copy, from `root`."""
        names = _tracked(self.root) if self.tracked else [beside.name for beside in self.root.glob("*.py")]
        wanted = {*map(Path, names), self.script, *self.included}
        return tuple(sorted(file for file in wanted if (self.root / file).is_file()))


def plan(script: str, include: Iterable[str] = ()) -> Snapshot:
    """The snapshot for *script*: what git tracks around it, or the Python files beside it, and what *include* names.

    *include* are paths or patterns, from the present folder. Raises RequestError when the script or something to
    include does not exist.
    """
    path = Path(script).expanduser().absolute()
    _check_script(path, script)
    path = path.parent.resolve() / path.name
    top = _git(path.parent, "rev-parse", "--show-toplevel")
    root = Path(top) if top else path.parent
    included = tuple(file.relative_to(root) for file in _included(include, root))
    return Snapshot(root=root, script=path.relative_to(root), included=included, tracked=bool(top))


def _check_script(path: Path, written: str) -> None:
    if path.is_file():
        if not os.access(path, os.R_OK):
            raise RequestError(f"the script {written!r} may not be read by you")
        return
    near = [p.name for p in path.parent.glob("*.py")] if path.parent.is_dir() else []
    what = "is a folder, not a script" if path.is_dir() else "does not exist"
    raise RequestError(f"the script {written!r} {what}{did_you_mean(path.name, near)}")


def _included(patterns: Iterable[str], root: Path) -> list[Path]:
    found = []
    for pattern in patterns:
        hits = [Path(pattern)] if Path(pattern).exists() else sorted(Path().glob(pattern)) if pattern[:1] != "/" else []
        if not hits:
            raise RequestError(f"--include {pattern!r} names nothing that exists")
        files = [file for hit in hits for file in ([hit] if hit.is_file() else hit.rglob("*"))]
        found += [file.resolve() for file in files if file.is_file()]
    if outside := next((file for file in found if not file.is_relative_to(root)), None):
        raise RequestError(f"--include {str(outside)!r} lies outside of {root}; name it by its full path in the script")
    return found


def _git(folder: Path, *words: str) -> str | None:
    """What git says about *folder*; None without git, outside of a repository, or in a strange one."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode(errors="surrogateescape").strip("\n") if done.returncode == 0 else None


def _tracked(root: Path) -> list[str]:
    return [name for name in (_git(root, "ls-files", "-z") or "").split("\0") if name]


def copy_code(snapshot: Snapshot, folder: RunFolder) -> None:
    """Copy the snapshot into `code/`.

    Raises RunError when the disk is full, RequestError when the code is over 1 GiB.
    """
    files = snapshot.files()
    size = sum((snapshot.root / file).stat().st_size for file in files)
    if size > MAX_BYTES:
        raise RequestError(
            f"git tracks {size / 2**30:.1f} GiB below {snapshot.root}, over the 1 GiB that a snapshot may have; "
            "start from a smaller repository, or take large files out of git"
        )
    try:
        for file in files:
            target = folder.code / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(snapshot.root / file, target)
    except OSError as error:
        raise RunError(f"the code cannot be copied to {folder.code}: {error.strerror}") from error


def copy_library(folder: RunFolder) -> None:
    """Put lumi-moai's own code into `lib/lumi_moai.zip`: one file, so that many ranks open one; with its byte code.

    A Python of another version takes the source. Raises RunError when it cannot be written.
    """
    import zipfile  # late, as below: `render` plans a snapshot and never makes one

    package, library = Path(__file__).parent.parent, folder.lib / "lumi_moai.zip"
    try:
        with zipfile.ZipFile(library, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for file in sorted(package.rglob("*.py")):
                name = Path("lumi_moai") / file.relative_to(package)
                archive.write(file, name)
                archive.writestr(str(name.with_suffix(".pyc")), _byte_code(file, library / name))
    except OSError as error:
        raise RunError(f"{folder.lib} cannot be written: {error.strerror}") from error


def _byte_code(file: Path, stored: Path) -> bytes:
    """The byte code of *file*, as code of the file *stored*; no time stamp binds it to that, since a zip rounds them.

    It is what Python keeps in `__pycache__`, or else compiled, and kept there where one may.
    """
    import marshal
    from importlib.machinery import SourceFileLoader
    from importlib.util import MAGIC_NUMBER, source_hash

    code = cast(CodeType, SourceFileLoader(file.stem, str(file)).get_code(file.stem))
    unchecked = (1).to_bytes(4, "little")
    return MAGIC_NUMBER + unchecked + source_hash(file.read_bytes()) + marshal.dumps(_moved(code, str(stored)))


def _moved(code: CodeType, file: str) -> CodeType:
    """*code*, and the functions in it, as code of *file*: tracebacks name it, and the runtime knows its own by it."""
    inner = tuple(_moved(each, file) if isinstance(each, CodeType) else each for each in code.co_consts)
    return code.replace(co_filename=file, co_consts=inner)


def write_passport(folder: RunFolder, where: Path, container: Container | None) -> None:
    """Write `passport.json` and, when something is not committed, `changes.diff`."""
    commit = _git(where, "rev-parse", "HEAD")
    changes = _git(where, "diff", "--binary", "HEAD") if commit else None
    if changes:
        write_text(folder.path / "changes.diff", changes.encode(errors="replace").decode() + "\n")
    image = container.image if container else None
    passport = {
        "lumi_moai": __version__,
        "commit": commit,
        "uncommitted_changes": bool(changes),
        "remote": _without_password(_git(where, "remote", "get-url", "origin")),
        "container": image,
        "container_resolved": os.path.realpath(image) if image and os.path.exists(image) else None,
        "python": None if container else sys.executable,
        "packages": {} if container else _packages(),
    }
    write_json(folder.passport, passport)


def _packages() -> dict[str, str]:
    """Versions of what is installed beside lumi-moai, which is what runs where no container does."""
    from importlib import metadata

    return {
        dist.name: dist.version for dist in sorted(metadata.distributions(), key=lambda d: d.name or "") if dist.name
    }


def _without_password(url: str | None) -> str | None:
    """*url* without user and password, which must not reach a file."""
    from urllib.parse import urlsplit, urlunsplit

    if url is None or "://" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
