"""The folder of a run, and the ledger of all runs. Every write goes to a file beside and is then renamed."""

import contextlib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import RunError

SCHEMA = 1


@dataclass(frozen=True)
class RunFolder:
    """Names of everything in one run's folder (mode 0700).

    ::

        job.json       everything decided: job, launch (what a rank needs), estimate, how it was asked for
        job.sbatch     the script as submitted
        passport.json  where the code came from: commit, package versions, container
        changes.diff   what was not committed
        code/          snapshot of the user's code
        lib/           lumi_moai.zip: the package as it was, for the nodes
        logs/          NAME-JOBID.log of the batch step, NAME-JOBID-rankN.log of each rank
        certificate/   JOBID-rRESTART.json: what every rank saw, and the verdict
        plan.json      the layout at work, and why (written by the runtime, as the next two)
        measured.json  the last measured speed
        samples/       JOBID-NODE.jsonl: what the devices of a node did while the run ran
        checkpoints/   step-N: where a requeued job goes on
        accounting.json  local runs only: what sacct would say
    """

    path: Path

    @property
    def job_file(self) -> Path:  # noqa: D102
        return self.path / "job.json"

    @property
    def script(self) -> Path:  # noqa: D102
        return self.path / "job.sbatch"

    @property
    def passport(self) -> Path:  # noqa: D102
        return self.path / "passport.json"

    @property
    def logs(self) -> Path:  # noqa: D102
        return self.path / "logs"

    @property
    def code(self) -> Path:  # noqa: D102
        return self.path / "code"

    @property
    def lib(self) -> Path:  # noqa: D102
        return self.path / "lib"

    @property
    def certificates(self) -> Path:  # noqa: D102
        return self.path / "certificate"

    @property
    def samples(self) -> Path:  # noqa: D102
        return self.path / "samples"

    @property
    def accounting(self) -> Path:  # noqa: D102
        return self.path / "accounting.json"

    def job(self) -> dict[str, Any]:
        """What `job.json` holds.

        Raises RunError when the folder is no run folder or the file is torn.
        """
        return read_json(self.job_file)


def make(path: Path) -> RunFolder:
    """A new run folder at *path*, only for its owner.

    Raises RunError when it exists or cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True)
        for part in ("logs", "code", "lib", "certificate"):
            (path / part).mkdir()
    except OSError as error:
        raise RunError(f"the run folder {path} cannot be made: {error.strerror}; choose another with --runs") from error
    return RunFolder(path)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of *text* as UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes, *, shared: bool = False) -> None:
    """Write *data* to *path* so that a reader sees the old file or the whole new one, never a part.

    Only its owner may read it, or with *shared* whom the umask lets.

    Raises RunError when the disk is full or the folder read-only.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if shared:
            os.umask(mask := os.umask(0o077))
            os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise RunError(f"{path} cannot be written: {error.strerror}") from error


def replace_ours(path: Path, data: bytes, *, mark: bytes, force: bool = False) -> None:
    """Write *data* to *path* as `write_text` does; a file without *mark* near its beginning is another's and stays.

    Raises RunError when there is such a file and *force* does not say to replace it, or it cannot be written.
    """
    check_ours(path, mark=mark, force=force)
    write_bytes(path, data, shared=True)


def check_ours(path: Path, *, mark: bytes, force: bool = False) -> None:
    """Raise the RunError of `replace_ours` for *path*, before anything is made that would go there."""
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise RunError(f"{path} {what}; name a file with --output")
    if path.exists() and not force and not _is_ours(path, mark):
        raise RunError(f"{path} is not a file that lumi-moai wrote; name another one, or replace it with --force")


def _is_ours(path: Path, mark: bytes) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
    return not head or mark in head


def write_json(path: Path, value: object) -> None:
    """`write_text` of *value* as JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in *path*.

    Raises RunError when it is missing, unreadable, torn or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path} is torn or not JSON: {error}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is not a JSON object")
    return value


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the ledger: a job that was submitted, and its end once that is known."""

    job_id: str
    name: str
    folder: str
    site: str
    scheduler: str
    submitted: float
    """Seconds since 1970."""
    units_per_hour: float
    unit: str
    tasks: int = 1
    """How many runs an array has."""
    state: str | None = None
    """The final state; None while the job may still change."""
    reason: str = ""
    elapsed_seconds: int | None = None
    """Over all runs of an array together."""


def state_folder() -> Path:
    """Where lumi-moai remembers: `$XDG_STATE_HOME/lumi-moai`, by default `~/.local/state/lumi-moai`."""
    from platformdirs import user_state_path

    return user_state_path("lumi-moai")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock beside *path*; a second writer waits.

    Raises RunError when the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_name(f".{path.name}.lock"), "w")  # noqa: SIM115
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ledger() -> Path:
    return state_folder() / "runs.jsonl"


def record(*entries: Entry) -> None:
    """Append *entries* to the ledger; a later line of the same job and folder replaces the earlier one.

    Raises RunError when it cannot be written.
    """
    path = _ledger()
    lines = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in entries)
    with locked(path):
        try:
            with open(path, "ab+") as file:
                torn = file.tell() and _last_byte(file) != b"\n"
                file.write((b"\n" if torn else b"") + lines.encode())
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror}") from error


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def entries() -> list[Entry]:
    """All runs, oldest first; lines that cannot be read are passed over, so one torn line loses one run at most."""
    try:
        text = _ledger().read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{_ledger()} cannot be read: {error.strerror}") from error
    found: dict[tuple[str, str], Entry] = {}
    for line in text.splitlines():
        entry = _entry(line)
        if entry is not None:
            found[(entry.job_id, entry.folder)] = entry
    return list(found.values())


_ENTRY_KEYS = {field.name for field in fields(Entry)}


def _entry(line: str) -> Entry | None:
    try:
        value = json.loads(line)
        return Entry(**{key: value[key] for key in value if key in _ENTRY_KEYS})
    except (ValueError, TypeError):
        return None


def find(word: str) -> tuple[RunFolder, str]:
    """The run that *word* means, a job id (also `123_4` of an array) or a run folder, and the job id in it.

    Raises RunError when there is none.
    """
    if "/" in word or Path(word).is_dir():
        folder = RunFolder(Path(word))
        if not (folder.path / "submitted.json").is_file():
            raise RunError(f"{word} is not the folder of a submitted run; `lumi-moai status` lists your runs")
        return folder, entry_of(folder).job_id
    known = entries()
    for wanted in (word, word.partition("_")[0]):
        matches = [entry for entry in known if entry.job_id == wanted]
        if matches:
            return RunFolder(Path(matches[-1].folder)), word
    raise RunError(f"there is no run {word!r} among yours; `lumi-moai status` lists them, a run folder works too")


def next_local_id() -> str:
    """A job id for a run on this machine, `local-1` and so on; two submits at once get two.

    Raises RunError when the state folder cannot be written.
    """
    path = state_folder() / "local-runs"
    with locked(path):
        last = path.read_text() if path.exists() else ""
        number = int(last) + 1 if last.strip().isdecimal() else 1 + _largest_local_id()
        write_text(path, f"{number}\n")
    return f"local-{number}"


def _largest_local_id() -> int:
    """The largest number in the ledger, for when the counter is new or torn."""
    found = (re.fullmatch(r"local-([0-9]{1,9})", entry.job_id) for entry in entries())
    return max((int(match[1]) for match in found if match), default=0)


def entry_of(folder: RunFolder) -> Entry:
    """The entry of a run by its folder alone, for one that is not in this user's ledger.

    Raises RunError when the folder holds no submitted run.
    """
    facts = read_json(folder.path / "submitted.json")
    try:
        return Entry(**{key: facts[key] for key in facts if key in _ENTRY_KEYS})
    except TypeError as error:
        raise RunError(f"{folder.path} does not hold a submitted run") from error


def controller_of(folder: RunFolder) -> int | None:
    """The process that runs a local run, None when it has ended; its start time tells it from a later namesake."""
    try:
        facts = read_json(folder.path / "submitted.json")
        pid, start = int(facts["pid"]), process_start(int(facts["pid"]))
        return pid if start is not None and start == facts["pid_start"] else None
    except (RunError, KeyError, ValueError, TypeError):
        return None


def process_start(pid: int) -> str | None:
    """When process *pid* started, in the kernel's ticks; None when there is none or it is a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if stat[0] == "Z" else stat[19]


def note_submission(folder: RunFolder, entry: Entry, facts: Mapping[str, object]) -> None:
    """Remember in the folder and in the ledger that the job was submitted."""
    write_json(folder.path / "submitted.json", {**asdict(entry), **facts})
    record(entry)
