"""The family of errors that a user may meet; each message is one sentence with the value, the rule and the way out.

LumiMoaiError           everything below; the command line shows it without a traceback and exits with 1
├── ConfigError         a file or value that somebody wrote cannot be read as what it should be
├── RequestError        what was asked for cannot be had: flavor, partition, time, script
├── SlurmError          Slurm is missing, too slow, or said no
│   └── SlurmTimeout    no answer within the time that we wait
├── RunError            a run folder, a state file or a log that cannot be read or written
└── BindingError        the ranks of a job do not sit where they should
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LumiMoaiError(Exception):
    """Base of all errors that are not bugs of ours."""


class ConfigError(LumiMoaiError):
    """One or several mistakes in a file that somebody wrote, all of them at once."""

    def __init__(self, *mistakes: str) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


class RequestError(LumiMoaiError):
    """What was asked for cannot be had."""


class SlurmError(LumiMoaiError):
    """Slurm is missing or said no; its own words are part of the message."""


class SlurmTimeout(SlurmError):
    """Slurm did not answer in time."""


class RunError(LumiMoaiError):
    """A run folder, a state file or a log cannot be read or written."""


class BindingError(LumiMoaiError):
    """The ranks of a job do not sit where they should."""


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest of *words*, or nothing."""
    lowered = {known.lower(): known for known in words}
    near = get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return f"; did you mean {lowered[near[0]]!r}?" if near else ""
