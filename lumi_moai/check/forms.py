"""Which values Slurm's `sbatch` takes for its options: those that it reads itself, before it asks the controller.

Compared with the `sbatch` of Slurm 22.05 on thousands of made-up values; where newer releases take more, so does this.
"""

import re

_COUNT = r"0*[1-9]\d*"
_SIZE = r"\d+([KMGT]B?)?"
_LEVEL = r"(\*|block|cyclic|fcyclic)"
_MAIL = r"(NONE|BEGIN|END|FAIL|REQUEUE|ALL|INVALID_DEPEND|STAGE_OUT|TIME_LIMIT(_[589]0)?|ARRAY_TASKS)"
_SIGNAL = r"(HUP|INT|QUIT|ABRT|KILL|ALRM|TERM|USR[12]|URG|CONT|STOP|TSTP|TTIN|TTOU|XCPU)"
_HINT = r"(compute_bound|memory_bound|(no)?multithread)"
_FORMS = {
    **dict.fromkeys(("ntasks", "cpus-per-task", "ntasks-per-node"), _COUNT),
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), _SIZE),
    "time": r"-?\d+(-(\d+(:\d+){0,2})?|(:\d+){0,2})|UNLIMITED|INFINITE",
    "nodes": r"-?\d[\d,:-]*[KM]?(-\d+[KM]?)?",
    "exclusive": r"(user|mcs|topo)?",
    "open-mode": r"[AT].*",
    "signal": rf"[BR]{{0,2}}:?(SIG)?(\d+|{_SIGNAL})(@\d{{0,5}})?",
    "hint": rf"{_HINT}(,{_HINT})*",
    "mail-type": rf"(.*,)?{_MAIL}(,.*)?",
    "distribution": rf"((no)?pack|({_LEVEL}|plane=\d+|arbitrary)?(:{_LEVEL}?){{0,2}}(,(no)?pack)?)",
}  # fmt: skip


def refused(name: str, text: str) -> bool:
    """Whether sbatch refuses *text* as the value of the option *name*; False where that is not certain."""
    form = _FORMS.get(name)
    if form is None:
        return False
    return not re.fullmatch(form, text, re.IGNORECASE | re.ASCII) or (name == "nodes" and _falls(text))


def _falls(text: str) -> bool:
    """Whether of a range of nodes the last is below the first."""
    found = re.fullmatch(r"(\d+)-(\d+)", text, re.ASCII)
    return found is not None and int(found[2]) < int(found[1])
