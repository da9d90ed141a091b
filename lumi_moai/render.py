"""JobSpec -> script. Pure: the same job gives the same bytes on any host.

Every value passes one of two filters: `sh` for the shell, `directive` for `#SBATCH` lines. Each line of a template says
with `because(origin, reason, source)` who wanted it and why; the words travel behind a control character, which no
value may contain, and become the lines of `--explain`.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from .errors import ConfigError, RequestError
from .job import JobSpec
from .units import format_gib, format_minutes

_RECORD, _FIELD = "\x1e", "\x1f"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a script: who decided it, why, and where that is written."""

    text: str
    origin: str = ""
    reason: str = ""
    source: str = ""


@dataclass(frozen=True)
class Script:
    """A rendered script, line by line."""

    lines: tuple[Line, ...]

    @property
    def text(self) -> str:
        """The bytes to submit."""
        return "".join(f"{line.text}\n" for line in self.lines)


def sh(value: object) -> str:
    """*value* as one word of bash.

    Raises RequestError for control characters: no shell quoting makes them safe to look at.
    """
    return shlex.quote(_printable(value))


def directive(value: object) -> str:
    """*value* for an `#SBATCH` line, a comment to the shell: it must not leave its line, and Slurm reads quotes itself.

    Slurm's reader ends a single-quoted part at the next quote and knows no escape inside it; inside double quotes a
    backslash escapes. Raises RequestError for control characters.
    """
    text = _printable(value)
    if text and all(letter.isalnum() or letter in "._+-=@:,/%^[]" for letter in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def pattern(value: object) -> str:
    """*value* for a file name in which Slurm replaces `%x` and its like: a `%` of the path stands for itself."""
    text = _printable(value)
    if "\\" in text:
        raise RequestError(
            f"{text!r} cannot hold logs: Slurm reads a backslash in a log's path as a command; use --runs"
        )
    return text.replace("%", "%%")


def _printable(value: object) -> str:
    text = str(value)
    if not text.isprintable():
        raise RequestError(f"{text!r} has a control character, a line break or broken text in it; take it out")
    return text


def because(origin: str, reason: str, source: str = "") -> str:
    """The words behind a line, for `--explain`; templates end each line with it."""
    return _RECORD + _FIELD.join((_printable(origin), _printable(reason), _printable(source)))


def render(job: JobSpec, folders: Sequence[str], template: str) -> Script:
    """The script of *job* by the *template* that is found first in *folders*.

    Raises ConfigError when the template is missing or asks for what a job does not have, RequestError when a value of
    the job cannot stand in a script.
    """
    env = jinja2.Environment(  # noqa: S701  # the output is a script; every value is quoted by a filter
        loader=jinja2.FileSystemLoader(list(folders)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters.update(sh=sh, directive=directive, pattern=pattern, gib=format_gib, clock=format_minutes)
    env.globals.update(because=because)
    try:
        text = env.get_template(template).render(job=job)
    except jinja2.TemplateNotFound as error:
        raise ConfigError(f"there is no template {error} in {', '.join(folders)}") from error
    except jinja2.TemplateError as error:
        raise ConfigError(f"template {template}: {error}") from error
    return Script(tuple(_lines(text)))


def _lines(text: str) -> list[Line]:
    """Split *text* at its line ends; a continued line keeps the reason of the one that it continues."""
    lines: list[Line] = []
    for raw in text.removesuffix("\n").split("\n"):
        shown, found, told = raw.partition(_RECORD)
        before: Any = lines[-1] if lines and lines[-1].text.endswith("\\") else Line(text="")
        words = told.split(_FIELD) if found else [before.origin, before.reason, before.source]
        lines.append(Line(text=shown.rstrip(), origin=words[0], reason=words[1], source=words[2]))
    return lines
