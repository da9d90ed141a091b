"""The words of `#SBATCH` lines and of `srun`, with their places: short, long, `=`, quoted, several on a line."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Slurm's short spellings, those of sbatch and srun together where they agree.
SHORT = {
    "A": "account", "a": "array", "B": "extra-node-info", "b": "begin", "C": "constraint", "c": "cpus-per-task",
    "D": "chdir", "d": "dependency", "e": "error", "F": "nodefile", "G": "gpus", "H": "hold", "i": "input",
    "I": "immediate", "J": "job-name", "k": "no-kill", "K": "kill-on-bad-exit", "L": "licenses", "l": "label",
    "M": "clusters", "m": "distribution", "N": "nodes", "n": "ntasks", "O": "overcommit", "o": "output",
    "p": "partition", "q": "qos", "Q": "quiet", "r": "relative", "S": "core-spec", "s": "oversubscribe",
    "t": "time", "T": "threads", "u": "unbuffered", "v": "verbose", "w": "nodelist", "W": "wait", "x": "exclude",
}  # fmt: skip
# Spellings that Slurm's reader takes for another; it also takes the unique beginning of a name.
_ALIAS = {"tasks-per-node": "ntasks-per-node", "workdir": "chdir", "cpu_bind": "cpu-bind", "mem_bind": "mem-bind"}
# Options without a value, or with one after `=` only.
_FLAGS = """contiguous disable-status exact exclusive get-user-env help hold ignore-pbs immediate
    interactive kill-on-bad-exit label multi-prog nice no-allocate no-kill no-requeue no-shell overcommit overlap
    oversubscribe parsable preserve-env propagate pty quiet quit-on-interrupt reboot requeue spread-job stepmgr
    test-only unbuffered usage use-min-nodes verbose version whole"""
FLAGS = frozenset(_FLAGS.split())
_SHORT_FLAGS = frozenset("EHhIKkIlOQsuvVWXZz")
_VALUES = """account acctg-freq array batch bb bbf begin bcast chdir cluster-constraint clusters comment compress
    constraint container container-id core-spec cores-per-socket cpu-bind cpu-freq cpus-per-gpu cpus-per-task
    deadline delay-boot dependency distribution epilog error exclude export export-file extra extra-node-info gid
    gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint input job-name jobid
    kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus mpi
    network nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node ntasks-per-socket
    open-mode output partition power prefer priority profile prolog qos relative reservation resv-ports segment
    signal slurmd-debug sockets-per-node switches task-epilog task-prolog thread-spec threads threads-per-core
    time time-min tmp tres-bind tres-per-task uid umask wait wait-all-nodes wckey wrap x11"""
VALUES = frozenset(_VALUES.split())
_NAMES = tuple(sorted(FLAGS | VALUES))


@dataclass(frozen=True, kw_only=True)
class Token:
    """A word of a line: what it means without its quotes, and where it stands, as offsets in the line."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Option:
    """One option: its long name (empty for a letter that nobody knows), its value, and the words it is made of."""

    name: str
    value: str
    given: bool
    """Whether a value was written at all."""
    first: int
    last: int
    """Index of its first and of its last word."""


def tokens(line: str, start: int = 0) -> tuple[tuple[Token, ...], bool]:
    """The words of *line* from *start* up to a comment, and whether a quote is left open (then the rest is one word).

    >>> [token.text for token in tokens("-N 2 --comment='a b' # c")[0]]
    ['-N', '2', '--comment=a b']
    """
    found: list[Token] = []
    at = start
    while at < len(line):
        if line[at].isspace():
            at += 1
            continue
        if line[at] == "#":
            break
        text, end = _word(line, at)
        if end == at:  # an open quote
            return (*found, *(Token(text=m[0], start=m.start(), end=m.end()) for m in _plain(line, at))), True
        if not text:
            break  # Slurm reads no further behind an empty word
        found.append(Token(text=text, start=at, end=end))
        at = end
    return tuple(found), False


def _plain(line: str, at: int) -> Iterator[re.Match[str]]:
    return re.compile(r"\S+").finditer(line, at)


def _word(line: str, at: int) -> tuple[str, int]:
    """The word at *at* and its end; the same *at* for a quote that never closes.

    As Slurm's reader (`_get_argument`) does, not as a shell: a backslash counts in both kinds of quotes, holds no
    blank together outside of them, and `#` ends a word wherever it stands.
    """
    text, quote, escaped = "", "", False
    for end in range(at, len(line)):
        letter = line[end]
        if not quote and (letter.isspace() or (letter == "#" and not escaped)):
            return text, end
        if escaped or (quote and letter not in (quote, "\\")):
            text, escaped = text + letter, False
        elif letter == "\\":
            escaped = True
        elif letter in "'\"":
            quote = "" if quote else letter
        else:
            text += letter
    return (text, len(line)) if not quote else ("", at)


def full_name(name: str) -> str:
    """Slurm's own name of an option, for an alias or a beginning that only one option has; else *name*."""
    name = _ALIAS.get(name, name)
    if name in FLAGS or name in VALUES:
        return name
    longer = [known for known in _NAMES if known.startswith(name)] if len(name) > 2 else []
    return longer[0] if len(longer) == 1 else name


def options(words: Sequence[str], *, program: bool = False) -> tuple[tuple[Option, ...], int]:
    """The options in *words*, and the index of the first word that is none (the program of an `srun` line).

    An `#SBATCH` line has no program: a stray word in it is passed over.
    """
    found: list[Option] = []
    at = 0
    while at < len(words):
        option = _option(words, at)
        if option:
            found.append(option)
            at = option.last
        elif program:
            return tuple(found), at + (words[at] == "--")
        at += 1
    return tuple(found), at


def _option(words: Sequence[str], at: int) -> Option | None:
    if match := re.fullmatch(r"--([A-Za-z][\w-]*)(?:(=)(.*))?", words[at], re.DOTALL):
        name = full_name(match[1])
        return _with_value(name, match[3] if match[2] else None, words, at, flag=name in FLAGS)
    if match := re.fullmatch(r"-([A-Za-z])(.*)", words[at], re.DOTALL):
        rest = match[2].removeprefix("=") if match[2] else None
        flag = match[1] in _SHORT_FLAGS and not (match[1] == "W" and rest is None and _number(words, at + 1))
        return _with_value(SHORT.get(match[1], ""), rest, words, at, flag=flag)
    return None


def _number(words: Sequence[str], at: int) -> bool:
    return at < len(words) and words[at].isdigit()


def _with_value(name: str, text: str | None, words: Sequence[str], at: int, *, flag: bool) -> Option:
    if text is not None:
        return Option(name=name, value=text, given=True, first=at, last=at)
    if flag or at + 1 >= len(words) or words[at + 1].startswith("-"):
        return Option(name=name, value="", given=False, first=at, last=at)
    return Option(name=name, value=words[at + 1], given=True, first=at, last=at + 1)
