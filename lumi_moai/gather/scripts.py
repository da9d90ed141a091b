"""Batch scripts from files: their text or why not, the helper scripts beside them, the site they are for."""

import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .. import billing, catalog
from ..catalog.settings import recognised, settings
from ..check import Finding, Script, check, fixed, read, rounds
from ..check.convert import Converted, convert
from ..check.explain import Told, explain
from ..errors import ConfigError, RequestError, RunError
from ..report.text import count
from ..sbatch import Asked, asked_of, parts, usage
from ..sbatch.options import FLAGS, VALUES
from ..site import Site
from ..units import format_gib

_LONGEST = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One script: what was found in it, or `problem`, one sentence why it could not be read."""

    path: str
    site: str | None = None
    script: Script | None = None
    findings: tuple[Finding, ...] = ()
    problem: str | None = None
    fixed_text: str | None = None
    """The text after all fixes, None where nothing was to be fixed."""
    made: tuple[Finding, ...] = ()
    """What was fixed; `findings` are those that are left then."""


def text_of(path: Path) -> str:
    """The text of a script as it is, line ends included.

    Raises RequestError with one sentence for what is no script: a folder, an empty or binary file, one without leave.
    """
    data = _data(path)
    if not data.strip():
        raise RequestError(f"{path} is empty; name a batch script")
    text = data.decode(errors="replace")
    if b"\0" in data or text.count("\ufffd") > len(text) / 10:
        raise RequestError(f"{path} is a binary file, not a batch script")
    if len(data) > _LONGEST:
        raise RequestError(f"{path} is longer than {_LONGEST >> 20} MiB, more than Slurm takes for a batch script")
    return data.decode(_encoding(data))


def _data(path: Path) -> bytes:
    """The bytes of a file, not more than can be judged; `-` is what stands on standard input."""
    try:
        if str(path) == "-":
            return sys.stdin.buffer.read(_LONGEST + 1)
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would wait for its writer
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RequestError(f"{path} is not a plain file; name a batch script")
            return file.read(_LONGEST + 1)
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error


def _encoding(data: bytes) -> str:
    """UTF-8, else one that gives every byte a letter, so that a file that is written again keeps its bytes."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"


def helpers(path: Path) -> Callable[[str], str | None]:
    """The texts of helper scripts by the path that the script calls them by: beside it, or from where we are."""

    def find(name: str) -> str | None:
        for folder in dict.fromkeys((Path.cwd(), path.parent)):
            try:
                return text_of(folder / name)
            except (RequestError, ValueError):
                continue
        return None

    return find


def folders(path: Path) -> Callable[[str], bool]:
    """Whether a folder exists, as Slurm would look for it from where we are or from beside the script."""
    return lambda name: any((base / name.strip("'\"")).is_dir() for base in (Path.cwd(), path.parent))


def read_script(path: str) -> Script:
    """The script in the file *path*.

    Raises RequestError with one sentence for what cannot be read.
    """
    return read(text_of(Path(path)), path, helpers(Path(path)))


def _likely(script: Script) -> Iterator[str]:
    """What may be the partition of a script that names none: by a line that comes too late, by a misspelled option."""
    lines = script.text.split("\n")
    for late in script.header.late:
        yield from re.findall(r"\s(?:-p\s*|--partition[=\s]\s*)([\w-]+)", lines[late])
    yield from (one.value for one in script.header.directives if one.name not in FLAGS | VALUES)


def site_for(name: str | None, script: Script) -> Site:
    """The site called *name*; without a name that of the settings or of this host, else one that has the partition.

    Raises RequestError when none is named and no bundled site has the script's partition.
    """
    chosen = name or getattr(settings({}).get("site"), "value", None) or recognised()
    if chosen:
        return catalog.site(chosen)
    wanted = next((one.asked.partition for one in (script, *script.inner) if one.asked.partition), None)
    likely = {wanted} if wanted else set(_likely(script))
    for known in catalog.site_names():
        try:
            site = catalog.site(known)
        except ConfigError:
            continue
        if likely & set(site.partitions):
            return site
    known_sites = ", ".join(catalog.site_names())
    what = f"partition {wanted!r} is of none of them" if wanted else "the script names no partition"
    raise RequestError(f"{script.path}: say with --site which cluster it is for ({known_sites}; {what})")


def check_file(path: str, site: str | None = None, *, fix: bool = False) -> Checked:
    """What is wrong with the script in the file *path*; with *fix* also its text with every safe fix made."""
    try:
        script = read_script(path)
        chosen = site_for(site, script)
    except RequestError as error:
        return Checked(path=path, problem=str(error))
    findings = check(script, chosen, folders(Path(path)))
    checked = Checked(path=path, site=chosen.name, script=script, findings=findings)
    return _fixed(checked, chosen) if fix else checked


def _fixed(checked: Checked, site: Site) -> Checked:
    """Fix and read again, until nothing is left that has a fix: one fix may make room for the next."""
    before, findings = checked.script, checked.findings
    made: tuple[Finding, ...] = ()
    if before is None:
        return checked
    text = before.text
    for _ in range(rounds(text)):
        text, done = fixed(text, findings, checked.path)
        if not done:
            break
        made += done
        findings = check(read(text, checked.path, helpers(Path(checked.path))), site, folders(Path(checked.path)))
    return Checked(
        path=checked.path, site=site.name, script=before, findings=findings, made=made,
        fixed_text=text if made else None,
    )  # fmt: skip


def with_fixes(checked: Checked) -> Checked:
    """*checked* once its fixes stand in its file; where it cannot be written, as it is, and why not in `problem`."""
    try:
        write_fixed(checked)
    except RunError as error:
        return replace(check_file(checked.path, checked.site), problem=str(error))
    return checked


def write_fixed(checked: Checked) -> None:
    """Put the fixed text in the place of the script: written beside it, then renamed, with the same permissions.

    Raises RunError when the folder or the file cannot be written.
    """
    if checked.fixed_text is None:
        return
    path = Path(os.path.realpath(checked.path))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        data = checked.fixed_text.encode(_encoding(path.read_bytes()), errors="replace")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        beside.chmod(mode)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise RunError(f"{checked.path} cannot be written: {error.strerror}") from error


@dataclass(frozen=True, kw_only=True)
class Price:
    """What an hour of a component of the job costs; a plain job has one component."""

    per_hour: float
    unit: str
    resources: str
    """What is paid for, in words."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """A script in words, with the price of an hour; no prices where that cannot be reckoned: `notes` say why."""

    site: str
    lines: tuple[Told, ...]
    prices: tuple[Price, ...]
    notes: tuple[str, ...]

    @property
    def totals(self) -> dict[str, float]:
        """The price of an hour of all components by its unit."""
        units = dict.fromkeys(price.unit for price in self.prices)
        return {unit: sum(price.per_hour for price in self.prices if price.unit == unit) for unit in units}


def explained(path: str, site: str | None) -> Explained:
    """The script in the file *path* in words.

    Raises RequestError for what cannot be read.
    """
    script = read_script(path)
    chosen = site_for(site, script)
    lines = explain(script, chosen)
    prices: list[Price] = []
    notes: list[str] = []
    many = script.header.later
    for number, part in enumerate(parts(script.header)):
        named = f"component {number}: " if many else ""
        try:
            price, said = _price(chosen, asked_of(part, script.text))
        except RequestError as error:
            return Explained(site=chosen.name, lines=lines, prices=(), notes=(f"{named}{error}",))
        prices.append(replace(price, resources=f"{named}{price.resources}"))
        notes += [f"{named}{one}" for one in said]
    return Explained(site=chosen.name, lines=lines, prices=tuple(prices), notes=tuple(notes))


def _price(site: Site, asked: Asked) -> tuple[Price, tuple[str, ...]]:
    blocked, notes = usage(site, asked)
    bill = billing.bill(site, blocked)
    each = ", for each run" if asked.array_tasks > 1 else ""
    resources = (
        f"{count(blocked.nodes, 'node')}, {count(blocked.devices, 'device')}, {count(blocked.cores, 'core')},"
        f" {format_gib(blocked.memory_gib)}; decided by {bill.decided_by}{each}"
    )
    return Price(per_hour=bill.per_hour, unit=bill.unit, resources=resources), notes


def converted(path: str, site: str | None) -> Converted:
    """The script in the file *path* as a job of lumi-moai.

    Raises RequestError for what cannot be read or has no flavor.
    """
    script = read_script(path)
    return convert(script, site_for(site, script), catalog.flavors(), lambda name: Path(name).is_file())


def write_new(path: Path, text: str) -> None:
    """Write *text* to *path*, which must not be there yet.

    Raises RunError when it is, or cannot be written.
    """
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise RunError(f"{path} is there already; move it away first") from error
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
