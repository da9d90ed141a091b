"""Rules on the life of a job: logs, signals, requeue, fixed nodes, and secrets in the text."""

import re
from collections.abc import Iterator

from .case import Case
from .rule import Hit, Rule

_LONG_MINUTES = 720
_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{30,}"), "a Hugging Face token"),
    (re.compile(r"\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{40,}"), "a GitHub token"),
    (re.compile(r"\bAKIA[0-9A-Z]{16}\b"), "an AWS key"),
    (re.compile(r"\bsk-[A-Za-z0-9_-]{32,}"), "an API key"),
    (re.compile(r"\bglpat-[\w-]{20,}"), "a GitLab token"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
    (re.compile(r"\bwandb login (?:--\S+ )*[0-9a-f]{40}\b"), "a Weights & Biases key"),
    (re.compile(r"(?i)\bWANDB_API_KEY=[\"']?([0-9a-f]{40})\b"), "a Weights & Biases key"),
    (re.compile(r"(?i)\b\w*(?:password|passwd|secret|api_?key|access_token)=[\"']?(?![\"'$/{(<]|your|xxx|\.\.\.)"
                r"(?=\w*\d)[\w+/=-]{16,}"), "a password or key"),
)  # fmt: skip


def _secrets(case: Case) -> Iterator[Hit]:
    for number, line in enumerate(case.script.text.split("\n")):
        for pattern, what in _SECRETS:
            if found := pattern.search(line):
                place = case.script.line_place(number, found.start(), found.end())
                yield Hit(place=place, message=f"{what} stands in the script, which others may read; keep it in a file"
                          " of mode 600 or in the environment that submits")  # fmt: skip
                break


def _log_folder(case: Case) -> Iterator[Hit]:
    made = [w.text.rstrip("/") for c in case.script.commands if c.name == "mkdir" for w in c.words[1:]]
    resubmits = any(c.name == "sbatch" for c in case.script.commands)
    for name in ("output", "error"):
        found = case.script.directive(name)
        folder = found.value.rpartition("/")[0] if found else ""
        if not found or not folder or folder in (".", "/dev", "/tmp"):  # noqa: S108
            continue
        if case.exists(folder) or "%" in folder:
            continue
        if resubmits and folder.removeprefix("./") in [one.removeprefix("./") for one in made]:
            continue
        late = " (`mkdir` in the script comes too late)" if folder in made else ""
        yield Hit(place=case.script.place(found, value=True),
                  message=f"the folder {folder} has to exist when the job starts{late}: Slurm makes none, and the job"
                  " fails without a log")  # fmt: skip
        return


def _signal(case: Case) -> Iterator[Hit]:
    minutes = case.script.asked.minutes
    found = case.script.directive("time")
    if not minutes or not found or minutes < _LONG_MINUTES or case.script.directive("signal"):
        return
    if not any(case.training()) or any(
        "--signal" in w.text or "timeout" in w.text for c in case.script.commands for w in c.words
    ):
        return
    yield Hit(place=case.script.place(found),
              message=f"{minutes // 60} hours and no --signal: nothing tells the program of its end")  # fmt: skip


def _nodes(case: Case) -> Iterator[Hit]:
    for name, what in (("exclude", "kept out"), ("nodelist", "asked for")):
        found = case.script.directive(name)
        if found and "$" not in found.value and re.search(r"\d", found.value):
            yield Hit(place=case.script.place(found),
                      message=f"nodes by name are {what}; the list stays when they are repaired")  # fmt: skip


def _requeue(case: Case) -> Iterator[Hit]:
    stated = ("requeue", "no-requeue", "open-mode")
    output = case.script.directive("output")
    if not case.site.policy.requeue or case.partition is None or (case.nodes or 1) < 2 or output is None:
        return
    if not any(case.script.directive(name) for name in stated):
        yield Hit(place=case.script.place(output),
                  message="after a node failure the job is queued again and its log begins anew;"
                  " --open-mode=append keeps it, --no-requeue keeps the job ended")  # fmt: skip


def _absent(case: Case) -> Iterator[Hit]:
    for one in case.script.absent[:8]:
        yield Hit(place=one.place, message=f"{one.path} is not here, so nothing is said about what it"
                  f" {'sets' if one.sourced else 'does'}")  # fmt: skip


RULES = (
    Rule(id="LM901", name="secret", severity="error", title="A secret in the script",
         reason="Scripts are copied, committed, and shown by `scontrol write batch_script`.", source="lumi-moai",
         look=_secrets),
    Rule(id="LM902", name="log-folder", severity="note", title="A log in a folder that may not exist",
         reason="Slurm opens the log before the script runs.", source="Slurm's sbatch(1)", look=_log_folder),
    Rule(id="LM903", name="no-signal", severity="note", title="A long job without a signal before its end",
         reason="What was computed since the last checkpoint is lost.", source="Slurm's sbatch(1)", look=_signal),
    Rule(id="LM904", name="named-nodes", severity="note", title="Nodes by name",
         reason="A list of bad nodes is out of date within weeks, and makes the job wait longer.",
         source="LUMI-AI-Guide; public scripts", look=_nodes),
    Rule(id="LM905", name="requeue", severity="note", title="What happens after a node failure is not said",
         reason="The site queues such jobs again by itself.", source="LUMI-training-materials 201-Slurm.md",
         look=_requeue),
    Rule(id="LM906", name="absent-helper", severity="note", title="A helper script that is not here",
         reason="No rule warns about what an unread script may set.", source="lumi-moai", look=_absent),
)  # fmt: skip
