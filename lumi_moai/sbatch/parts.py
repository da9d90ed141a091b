"""The components of a heterogeneous job: what each asks for, by its own lines and by those that it takes over."""

from dataclasses import replace

from ..errors import RequestError
from .asked import Asked, Header, asked_of, header

# What a component takes over from the one before, unless it says something else (Slurm, heterogeneous_jobs.html).
_INHERITED = frozenset(
    (
        "account", "acctg-freq", "begin", "cluster-constraint", "clusters", "comment", "deadline", "delay-boot",
        "dependency", "distribution", "error", "exclude", "export", "export-file", "get-user-env", "hold", "input",
        "job-name", "mail-type", "mail-user", "mcs-label", "no-kill", "no-requeue", "open-mode", "output", "priority",
        "profile", "propagate", "qos", "requeue", "reservation", "signal", "time", "time-min", "wait", "wckey",
    )
)  # fmt: skip


def parts(found: Header) -> tuple[Header, ...]:
    """A header for each component of the job, with what it takes over; *found* alone for any other job."""
    headers = [found]
    for part in found.later:
        own = {directive.name for directive in part.directives}
        taken = [one for one in headers[-1].directives if one.name in _INHERITED and one.name not in own]
        headers.append(replace(part, directives=(*taken, *part.directives)))
    return tuple(headers)


def read_parts(script: str) -> tuple[Asked, ...]:
    """The options in the `#SBATCH` lines of *script*, for each component of the job.

    Raises RequestError for a text without any such line.
    """
    found = header("\n".join(script.splitlines()))
    if not found.lines:
        raise RequestError("there is no #SBATCH line in it, so it does not say what it needs; give it as options")
    return tuple(asked_of(part, script) for part in parts(found))


def read(script: str) -> Asked:
    """The options of a job of one component, or of the first.

    Raises RequestError for a text without any `#SBATCH` line.
    """
    return read_parts(script)[0]
