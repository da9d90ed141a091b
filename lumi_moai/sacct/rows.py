"""What sacct prints as rows by column name: `--parsable2`, `--parsable`, or its tables of fixed width."""

import re
from collections.abc import Iterator, Mapping, Sequence

Row = Mapping[str, str]
_RULE = re.compile(r"-+(?: -+)* *")
# sacct's own names, whatever case they were asked for in.
_NAMES = {
    name.lower(): name
    for name in (
        *("JobID", "JobIDRaw", "JobName", "State", "ExitCode", "Partition", "Account", "Elapsed", "ElapsedRaw"),
        *(
            "AllocTRES",
            "AllocCPUS",
            "NCPUS",
            "NNodes",
            "MaxRSS",
            "Start",
            "End",
            "Reason",
            "Restarts",
            "Timelimit",
            "TimelimitRaw",
        ),
    )
}


def rows(text: str) -> Iterator[Row]:
    """Every row of *text*; nothing where there is no header line with a JobID."""
    lines = text.splitlines()
    for place, line in enumerate(lines):
        names = _named(line.strip().split("|"))
        if "|" in line and ("JobID" in names or "JobIDRaw" in names):
            yield from _parsable(names, lines[place + 1 :])
            return
        if place and _RULE.fullmatch(line) and "jobid" in lines[place - 1].lower():
            yield from _table(lines[place - 1], line, lines[place + 1 :])
            return


def _named(cells: Sequence[str]) -> list[str]:
    return [_NAMES.get(cell.strip().lower(), cell.strip()) for cell in cells]


def _parsable(header: Sequence[str], lines: Sequence[str]) -> Iterator[Row]:
    names = ["JobID" if name == "JobIDRaw" and "JobID" not in header else name for name in header]
    for line in lines:
        if "|" in line:
            yield dict(zip(names, _cells(line, names), strict=False))


def _cells(line: str, header: Sequence[str]) -> list[str]:
    """The cells of *line*; a job name may hold the separator, so surplus cells belong to it."""
    cells = line.rstrip("\r\n").split("|")
    surplus = len(cells) - len(header)
    if surplus > 0 and "JobName" in header:
        at = header.index("JobName")
        cells[at : at + surplus + 1] = ["|".join(cells[at : at + surplus + 1])]
    return cells + [""] * -surplus


def _table(header: str, rule: str, lines: Sequence[str]) -> Iterator[Row]:
    """Rows under a *rule* of dashes, which says how wide each column is; a cut cell ends in `+`."""
    spans = [match.span() for match in re.finditer("-+", rule)]
    names = _named([header[begin:end] for begin, end in spans])
    for line in lines:
        if not line.strip():
            return
        yield dict(zip(names, (line[begin:end].strip() for begin, end in spans), strict=True))
