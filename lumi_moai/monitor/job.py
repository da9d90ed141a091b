"""A look at the devices of a running job, taken on its own nodes.

For a job of Slurm one step (`srun --overlap`) runs a sampler, some lines of shell, on every node. It starts the source
and prints one line: the host, the devices that the step was given, the processes of the job, and the source's own
words. The shell needs nothing installed, so a vendor's program works as source for a job whose container and host have
no Python of ours; sources that are Python libraries run as `python -m lumi_moai.monitor SOURCE`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from socket import gethostname

from .. import slurm
from ..errors import LumiMoaiError, RunError
from ..site import Device, JobPolicy
from . import amdsmi, nvml, processes, rocm_smi
from .runs import Run
from .sample import Look, first_object, merged

# Sources that read this machine by themselves; `processes` needs a process to start from.
READERS: dict[str, Callable[[str], Look]] = {"rocm-smi": rocm_smi.read, "amdsmi": amdsmi.read, "nvml": nvml.read}
_SECONDS = 30.0

# A job's processes are found by Slurm's cgroup names; where Slurm tracks them otherwise the list is empty and says
# nothing. A source that hangs on a sick node must not hang the look at the others. srun passes output on in pieces of
# 1 KiB and mixes those of several nodes, so a record goes in shorter lines, which `--label` marks with their task.
_SAMPLER = r"""
if command -v "$1" >/dev/null; then
    said=$(timeout 15 "$@" 2>&1) || said="!$(printf %s "$said" | tail -n 1)"
else
    said="!it is not installed"
fi
pids=$(grep -lw "job_$SLURM_JOB_ID" /proc/[0-9]*/cgroup 2>/dev/null | tr -dc '0-9\n' | tr '\n' ' ')
said=$(printf %s "$said" | tr '\n\t' '  ')
node=${SLURMD_NODENAME:-$(uname -n)}
printf '%s\t%s\t%s\t%s\n' "$node" "${SLURM_STEP_GPUS:-$SLURM_JOB_GPUS}" "$pids" "$said" | fold -b -w 900
"""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the first source that answered told. `why` says in one sentence why values are missing, all or some."""

    look: Look = field(default_factory=Look)
    source: str | None = None
    why: str | None = None


def read(run: Run, device: Device, policy: JobPolicy) -> Reading:
    """The devices of *run* now, from the first source of *device* that answers."""
    refusals = []
    for source in device.monitor:
        try:
            look = _read(source, run, device, policy)
            return Reading(look=look, source=source, why=_missing(look, source, run))
        except LumiMoaiError as error:
            refusals.append(f"{source}: {str(error).splitlines()[0]}")
    sources = "; ".join(refusals) or f"device {device.name} names no source under `monitor`"
    return Reading(why=f"no live values of job {run.job_id}: {sources}")


def _missing(look: Look, source: str, run: Run) -> str | None:
    shown = len(look.samples)
    return None if shown >= run.devices else f"{source} shows {shown} of the {run.devices} devices of job {run.job_id}"


def _read(source: str, run: Run, device: Device, policy: JobPolicy) -> Look:
    if run.local:
        return _read_here(source, run, device)
    if source not in READERS:
        raise RunError(f"there is no such source for jobs of Slurm (known: {', '.join(READERS)})")
    return parse(source, slurm.call(words(source, run, policy), seconds=_SECONDS, env=slurm.clean_environment()), run)


def _read_here(source: str, run: Run, device: Device) -> Look:
    if source in READERS:
        return READERS[source](gethostname()).only(range(run.devices))  # rank n uses device n
    if source != "processes" or run.pid is None:
        raise RunError(f"there is no such source (known: {', '.join([*READERS, 'processes'])})")
    return processes.read(run.pid, node=gethostname(), memory_total_mib=float(device.memory_mib))


def words(source: str, run: Run, policy: JobPolicy) -> list[str]:
    """The command that looks at every node of *run* once, beside the job's own steps."""
    return [
        "srun",
        "--overlap",  # share the devices, cores and memory of the running step instead of waiting for it
        f"--jobid={run.job_id}",
        f"--nodes={run.nodes}",
        f"--ntasks={run.nodes}",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
        "--cpu-bind=none",
        f"--{policy.gpus_option}={run.devices_per_node}",  # a step sees only devices that it was given
        "--input=none",
        "--label",
        "--quiet",
        "sh",
        "-c",
        _SAMPLER,
        "sampler",
        *_source_words(source, run),
    ]


def _source_words(source: str, run: Run) -> Sequence[str]:
    if source == "rocm-smi":
        return rocm_smi.WORDS
    return ("env", f"PYTHONPATH={run.folder.lib / 'lumi_moai.zip'}", run.python, "-m", "lumi_moai.monitor", source)


def parse(source: str, text: str, run: Run) -> Look:
    """What the sampler printed, a record for each node, as one look in the order of the host names.

    Raises RunError when no node told anything, with the words of the first.
    """
    looks: list[Look] = []
    refusals: list[str] = []
    for record in sorted(_records(text)):
        fields = record.split("\t", 3)
        if len(fields) < 4:  # a prolog's greeting
            continue
        try:
            looks.append(_parse_node(source, *fields, run=run))
        except RunError as error:
            refusals.append(f"{error} on {fields[0]}")
    if not looks:
        raise RunError(refusals[0] if refusals else "its step on the job's nodes printed nothing")
    return merged(looks)


def _records(text: str) -> list[str]:
    """The records of the tasks, put together from their lines (`3: ...`)."""
    pieces: dict[str, list[str]] = {}
    for line in text.splitlines():
        if match := re.match(r"\s*(\d+): ?(.*)", line):
            pieces.setdefault(match[1], []).append(match[2])
    return ["".join(lines) for lines in pieces.values()]


def _parse_node(source: str, node: str, devices: str, pids: str, said: str, *, run: Run) -> Look:
    if said.startswith("!"):
        raise RunError(said[1:].strip() or "it said nothing")
    look = rocm_smi.parse(said, node) if source == "rocm-smi" else _parse_plain(said)
    look = _of_job(look, devices, run.devices_per_node)
    return look.only_pids([int(pid) for pid in pids.split()]) if pids.strip() else look


def _of_job(look: Look, devices: str, count: int) -> Look:
    """*look* without other jobs' devices: where a source shows the whole node, the *count* that *devices* names."""
    own = [int(device) for device in devices.split(",") if device.isdecimal()]
    return look.only(own) if len(look.samples) > count == len(own) else look


def given(look: Look, environ: Mapping[str, str], count: int) -> Look:
    """*look*, taken by a process of the job itself, without the devices of other jobs; the job has *count* here."""
    if "SLURM_JOB_ID" not in environ:
        return look.only(range(count))  # rank n uses device n
    return _of_job(look, environ.get("SLURM_STEP_GPUS") or environ.get("SLURM_JOB_GPUS") or "", count)


def _parse_plain(said: str) -> Look:
    return Look.from_json(first_object(said))
