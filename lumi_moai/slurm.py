"""The one place that runs Slurm's programs. Words go in as a list, text comes out, failure is one sentence."""

import os
import subprocess
from collections.abc import Mapping, Sequence

from .errors import SlurmError, SlurmTimeout

_SECONDS = "LUMI_MOAI_SLURM_SECONDS"

# What sbatch says, and what to do about it.
ADVICE = {
    "Invalid account": "name your project with --account; `lumi-moai config` shows where the present one comes from",
    "invalid partition": "`lumi-moai flavors` shows the partition of each flavor; --partition overrides it",
    "Requested time limit is invalid": "ask for less with --time",
    "Requested node configuration is not available": "no node of the partition has that many devices, cores or GiB",
    "QOSMaxSubmitJobPerUserLimit": "you have as many jobs queued as the partition allows; wait for one to end",
    "AssocMaxSubmitJobLimit": "your project has as many jobs queued as it may; wait for one to end",
    "Job violates accounting/QOS policy": "your project's limits forbid it: a shorter --time or smaller --flavor may",
    "Unable to contact slurm controller": "Slurm's controller does not answer; try again in some minutes",
    "Connection refused": "Slurm does not answer; try again in some minutes",
    "Invalid job array specification": "write --array as 0-9 or 1,3,5 or 0-99%10",
    "Invalid qos": "name a quality of service that your project has, with --sbatch qos=NAME",
    "Socket timed out": "Slurm is overloaded; try again in some minutes",
}


def call(words: Sequence[str], *, seconds: float | None = None, env: Mapping[str, str] | None = None) -> str:
    """Standard output of the program *words*.

    *seconds* is how long to wait (60, or `$LUMI_MOAI_SLURM_SECONDS`). Raises SlurmError when the program is missing or
    fails, with its own words and what to do; SlurmTimeout when it does not answer.
    """
    program = words[0]
    seconds = seconds or float(os.environ.get(_SECONDS, "60"))
    try:
        done = subprocess.run(list(words), capture_output=True, timeout=seconds, env=env, check=False)
    except FileNotFoundError:
        raise SlurmError(
            f"{program} is not on this machine; run this on a login node of the cluster, or use --site local"
        ) from None
    except PermissionError:
        raise SlurmError(f"{program} may not be run by you on this machine") from None
    except subprocess.TimeoutExpired:
        raise SlurmTimeout(
            f"{program} did not answer within {seconds:g} seconds; try again, or wait longer with {_SECONDS}=300"
        ) from None
    if done.returncode != 0:
        raise SlurmError(refusal(program, done.returncode, done.stderr.decode(errors="replace")))
    return done.stdout.decode(errors="replace")


def refusal(program: str, code: int, stderr: str) -> str:
    """Slurm's own words, and what to do about them where we know."""
    said = "; ".join(line.strip() for line in stderr.splitlines() if line.strip()) or f"exit code {code}"
    advice = next((advice for words, advice in ADVICE.items() if words.lower() in said.lower()), None)
    return f"{program} refused: {said}" + (f"\n  What to do: {advice}." if advice else "")


def clean_environment(keep: Sequence[str] = ()) -> dict[str, str]:
    """This process's environment without the variables by which a shell or an outer job would steer `sbatch`.

    `SBATCH_*` would silently override the script, `SLURM_*` of an outer job would leak into the new one;
    `SLURM_CONF` says where Slurm is and stays.
    """
    hidden = ("SBATCH_", "SLURM_", "SRUN_")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(hidden) or name in ("SLURM_CONF", *keep)
    }


def cluster_name() -> str | None:
    """Slurm's ClusterName, or None where no Slurm answers."""
    try:
        text = call(["scontrol", "show", "config"], seconds=10)
    except SlurmError:
        return None
    lines = (line.partition("=") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == "ClusterName"), None)


# The name comes last because it may hold the separator.
QUEUE_FIELDS = ("job_id", "state", "reason", "elapsed", "time_limit", "nodes", "partition", "name")
_QUEUE_FORMAT = "%i|%T|%r|%M|%l|%D|%P|%j"


def squeue() -> str:
    """All jobs of the user that are queued or running, one line each in the order of QUEUE_FIELDS."""
    return call(["squeue", "--me", "--noheader", "--array", f"--format={_QUEUE_FORMAT}"])


SACCT_FIELDS = (
    "JobID", "JobName", "State", "ExitCode", "Partition", "Account", "ElapsedRaw", "AllocTRES", "NNodes",
    "MaxRSS", "Start", "End", "Reason", "TimelimitRaw",
)  # fmt: skip


def sacct(job_ids: Sequence[str], *, fields: Sequence[str] = SACCT_FIELDS) -> str:
    """Records of sacct for *job_ids* with their steps, parsable, with a header line; one call for all.

    With duplicates: a requeued job has a record for each start, and every start is billed.
    """
    return call(["sacct", "--parsable2", "--duplicates", f"--format={','.join(fields)}", f"--jobs={','.join(job_ids)}"])


def scancel(job_ids: Sequence[str]) -> None:
    """Cancel *job_ids*."""
    call(["scancel", *job_ids])
