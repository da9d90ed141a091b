"""Estimates: from the user's words, a flavor, a batch script or a job, to a price with what it is a part of."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .. import billing, catalog, flavor, rundir, sbatch, state
from ..catalog.settings import Setting, resolve_site, settings
from ..errors import RequestError, RunError
from ..report import Estimate
from ..sbatch import Asked
from ..site import Site
from ..units import parse_minutes
from ..usage import Accounting, Usage
from .accounts import accounts, balance, local_books
from .runs import JOB_ID

_LONGEST_SCRIPT = 1 << 20


def estimate(what: str | None, given: Mapping[str, str | None], asked: Asked) -> Estimate:
    """The price of *what*: a job id or run folder (what it took), a batch script, or None for options and flavor.

    *given* are the settings of the command line, *asked* the resources named there; those add to a script's and
    replace them. Raises RequestError, ConfigError or RunError when there is nothing to price.
    """
    layers = settings(given)
    site = resolve_site(_value(layers, "site"))
    account = _value(layers, "account")
    if what is None:
        word = _value(layers, "flavor") or state.chosen(site.name)
        if asked.partition and (_names_resources(asked) or word is None):
            return _priced(site, account, "these options", asked)
        return _of_flavor(site, account, word, layers, asked)
    if given.get("flavor"):
        raise RequestError(f"--flavor and {what!r} each say what to price; leave one of them out")
    path = Path(what)
    if path.is_file():
        first, *later = _script(path)
        return _with_components(_priced(site, account, what, _joined(first, asked, path.name)), site, later)
    if _names_resources(asked) or asked.partition or asked.minutes:
        raise RequestError(f"{what!r} is a job or run, whose resources are known; leave the options out")
    return _of_job(what, site)


def _names_resources(asked: Asked) -> bool:
    named = (asked.nodes, asked.devices_per_node, asked.cpus_per_task, asked.memory_gib)
    return any(value is not None for value in named)


def _value(layers: Mapping[str, Setting], name: str) -> str | None:
    return layers[name].value if name in layers else None


def _of_flavor(
    site: Site, account: str | None, word: str | None, layers: Mapping[str, Setting], asked: Asked
) -> Estimate:
    if _names_resources(asked):
        raise RequestError("--nodes, --devices, --cpus and --mem go with --partition; a flavor brings its own")
    if word is None:
        raise RequestError(
            "there is nothing to estimate: name a --flavor, a --partition with its resources, a script or a job"
        )
    notes: tuple[str, ...] = ()
    time = _value(layers, "time")
    minutes = asked.minutes or (parse_minutes(time) if time else site.policy.default_minutes)
    if not (asked.minutes or time):
        notes = ("no time is named, so the site's default is counted; say --time",)
    wanted = flavor.find(word, catalog.flavors())
    partition = asked.partition or _value(layers, "partition")
    placement = flavor.place(site, wanted, minutes=minutes, partition=partition)
    usage = billing.usage_of(site, placement, minutes=minutes)
    return _estimate(site, account, f"flavor {wanted.name}", usage, notes=notes)


def _script(path: Path) -> tuple[Asked, ...]:
    try:
        with open(path, "rb") as file:
            text = file.read(_LONGEST_SCRIPT).decode(errors="replace")
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return sbatch.read_parts(text)
    except RequestError as error:
        raise RequestError(f"{path}: {error}") from error


def _joined(script: Asked, asked: Asked, name: str) -> Asked:
    """The script's options with those of the command line in their place."""
    named = {key: value for key in ("partition", "minutes", "nodes") if (value := getattr(asked, key)) is not None}
    if asked.devices_per_node is not None:
        named |= {"devices_per_node": asked.devices_per_node, "devices": None, "devices_per_task": None}
    if asked.cpus_per_task is not None:
        named |= {"cpus_per_task": asked.cpus_per_task, "tasks_per_node": 1, "ntasks": None, "cpus_per_device": None}
    if asked.memory_gib is not None:
        named |= {"memory_gib": asked.memory_gib, "memory_gib_per_cpu": None, "memory_gib_per_device": None}
    said = f"{', '.join(named)} of the command line stand in place of the script's"
    notes = (*script.notes, said) if named and any(getattr(script, key) for key in named) else script.notes
    return replace(script, **named, notes=notes)


def _with_components(first: Estimate, site: Site, later: Sequence[Asked]) -> Estimate:
    """*first* with the further components of a heterogeneous job."""
    found, notes = [], list(first.notes)
    for number, asked in enumerate(later, 1):
        try:
            used, said = sbatch.usage(site, asked)
        except RequestError as error:
            raise RequestError(f"component {number} of the job: {error}") from error
        found.append((used, billing.bill(site, used)))
        notes += [f"component {number}: {one}" for one in said]
    return replace(first, later=tuple(found), notes=tuple(notes), cheaper=None) if found else first


def _priced(site: Site, account: str | None, title: str, asked: Asked) -> Estimate:
    usage, notes = sbatch.usage(site, asked)
    return _estimate(site, asked.account or account, title, usage, tasks=asked.array_tasks, notes=notes)


def _estimate(
    site: Site, account: str | None, title: str, usage: Usage, *, tasks: int = 1, notes: tuple[str, ...] = ()
) -> Estimate:
    bill = billing.bill(site, usage)
    rule = site.rule(site.partition(usage.partition))
    left, warning = balance(site, account, rule.allocation, rule.unit)
    return Estimate(
        title=title,
        site=site.name,
        usage=usage,
        bill=bill,
        cheaper=billing.cheapest(site, usage),
        tasks=tasks,
        balance=left,
        notes=notes,
        warnings=(warning,) if warning else (),
    )


def _of_job(what: str, site: Site) -> Estimate:
    """What a job took; the tasks of an array are summed by their time."""
    warnings: list[str] = []
    found, site = _took(what, site, warnings)
    if not found:
        raise RunError(warnings[0] if warnings else f"there is no job {what} in the accounting of site {site.name}")
    largest = max(found, key=lambda took: (took.usage.nodes, took.usage.devices, took.usage.cores))
    hours = sum(took.usage.hours for took in found)
    account = largest.account or os.environ.get("SBATCH_ACCOUNT")
    states = ", ".join(dict.fromkeys(took.state for took in found))
    priced = _estimate(site, account, f"job {what} ({states})", replace(largest.usage, hours=hours))
    bills = [billing.bill(site, took.usage) for took in found]
    total = sum(bill.billing_units for bill in bills)
    note = (f"{len(found)} runs of the array or parts of the job together",) if len(found) > 1 else ()
    return replace(
        priced, bill=replace(priced.bill, billing_units=total), actual=True, notes=note, cheaper=_cheaper(priced, found)
    )


def _cheaper(priced: Estimate, found: Sequence[Accounting]) -> tuple | None:
    return priced.cheaper if len(found) == 1 else None


def _took(what: str, site: Site, warnings: list[str]) -> tuple[tuple[Accounting, ...], Site]:
    try:
        folder, job_id = rundir.find(what)
    except RunError:
        if site.scheduler != "slurm" or not JOB_ID.fullmatch(what):
            raise RequestError(f"{what!r} is neither a job or run of yours nor a file") from None
        return accounts(what, site, warnings), site
    entry = rundir.entry_of(folder)
    site = catalog.site(entry.site)
    if entry.scheduler != "slurm":
        return local_books(folder, folder.job(), job_id), site
    return accounts(job_id, site, warnings), site
