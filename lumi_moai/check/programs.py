"""Programs that start others: where their own words end and those of the next program begin."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..sbatch.options import options

SHELLS = frozenset(("bash", "sh", "dash", "ksh", "zsh"))
CONTAINERS = frozenset(("singularity", "apptainer"))
FOR_INSIDE = ("SINGULARITYENV_", "APPTAINERENV_")
"""What a container takes over of the variables that begin so, without the beginning."""
_CONTAINER_VALUES = frozenset(
    (
        "-B", "--bind", "--env", "--env-file", "-H", "--home", "--pwd", "--cwd", "--overlay", "-o", "-W", "--workdir",
        "-S", "--scratch", "--network", "--network-args", "--app", "--security", "--mount", "--fusemount", "--dns",
        "--add-caps", "--drop-caps", "--hostname", "--apply-cgroups", "--shell",
    )
)  # fmt: skip
# How many words of their own stand before the program: options are passed over, then so many plain words.
_PLAIN = {
    "time": 0, "nice": 0, "nohup": 0, "stdbuf": 0, "exec": 0, "command": 0, "builtin": 0, "setsid": 0, "catchsegv": 0,
    "numactl": 0, "taskset": 1, "timeout": 1, "env": 0, "sudo": 0, "unbuffer": 0, "rocprof": 0,
}  # fmt: skip
# Profilers, whose program stands behind `--`.
_BEHIND_DASHES = frozenset(("rocprofv3", "rocprof-sys-run", "rocprof-sys-sample", "omnitrace-run", "omnitrace-sample"))
_PLAIN_VALUES = {
    "nice": {"-n"}, "stdbuf": {"-i", "-o", "-e"}, "timeout": {"-s", "-k"}, "env": {"-u", "-C"}, "time": {"-f", "-o"},
    "rocprof": {"-o", "-i", "-d"}, "exec": {"-a"},
}  # fmt: skip
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Next:
    """What a program starts: `at` is the first word of the next one; `sets` the variables that it is given."""

    at: int
    sets: tuple[tuple[str, str], ...] = ()


def opened(words: Sequence[str]) -> Next | None:
    """Where the next program begins in *words*, whose first is a program; None when it starts none."""
    name = words[0].rpartition("/")[2]
    if name == "srun":
        return Next(at=options(words[1:], program=True)[1] + 1)
    if name in CONTAINERS:
        return _container(words)
    if name in _BEHIND_DASHES and "--" in words:
        return Next(at=words.index("--") + 1)
    if name in _PLAIN:
        return _plain(name, words)
    if name in ("conda", "mamba", "micromamba", "uv", "poetry", "pixi") and words[1:2] == ["run"]:
        return Next(at=_past_options(words, 2, {"-n", "-p", "--name", "--prefix", "--with"}))
    return None


def image(words: Sequence[str]) -> int | None:
    """The index of the image in the words of a container's program, None when it is not a start of one."""
    found = _container(words)
    return found.at - 1 if found else None


def verb(words: Sequence[str]) -> int | None:
    """The index of `run` or `exec` in the words of a container's program."""
    return next((at for at, word in enumerate(words[1:4], 1) if word in ("run", "exec", "shell")), None)


def _container(words: Sequence[str]) -> Next | None:
    at = verb(words)
    if at is None:
        return None
    end = _past_options(words, at + 1, _CONTAINER_VALUES)
    if end >= len(words):
        return None
    given = [words[n + 1] for n in range(at, end - 1) if words[n] == "--env"]
    given += [word.removeprefix("--env=") for word in words[at:end] if word.startswith("--env=")]
    pairs = [match for text in given for part in text.split(",") if (match := _ASSIGNMENT.fullmatch(part))]
    return Next(at=end + 1, sets=tuple((match[1], match[2]) for match in pairs))


def _plain(name: str, words: Sequence[str]) -> Next:
    at = _past_options(words, 1, _PLAIN_VALUES.get(name, set())) + _PLAIN[name]
    pairs = []
    while name in ("env", "sudo") and at < len(words) and (match := _ASSIGNMENT.fullmatch(words[at])):
        pairs.append((match[1], match[2]))
        at += 1
    return Next(at=at, sets=tuple(pairs))


def _past_options(words: Sequence[str], at: int, with_value: set[str] | frozenset[str]) -> int:
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] in with_value else 1
    return min(at, len(words))


_TAKES_NAME = re.compile(r"[-+][A-Za-z]*[oO]|--rcfile|--init-file")


def shell_text(words: Sequence[str]) -> int | None:
    """The index of the text in `bash -c TEXT`, None without `-c`."""
    at = 1
    while at < len(words) and re.match(r"[-+]", words[at]):
        if re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*", words[at]):
            at += 2 if _TAKES_NAME.fullmatch(words[at]) else 1
            return at if at < len(words) else None
        at += 2 if _TAKES_NAME.fullmatch(words[at]) else 1
    return None


def shell_file(words: Sequence[str]) -> int | None:
    """The index of the script in `bash SCRIPT`, None when there is none."""
    at = 1
    while at < len(words) and words[at][:1] in ("-", "+"):
        at += 2 if _TAKES_NAME.fullmatch(words[at]) else 1
    return at if at < len(words) and shell_text(words) is None else None
