"""From the user's words to a JobSpec: settings, site, flavor and placement, with the origin of each value."""

import glob
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import billing, catalog, flavor, state
from ..catalog.settings import Setting, resolve_site, settings
from ..errors import RequestError
from ..flavor import Placement
from ..job import JobSpec, Request, make_job, script_name
from ..plan import Wishes
from ..render import Script, render
from ..resources import root
from ..site import Device, Site
from ..units import parse_minutes
from ..usage import Bill, Usage
from .earlier import Earlier
from .snapshot import Snapshot, plan


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Everything that is known before a run folder exists."""

    site: Site
    placement: Placement
    request: Request
    runs: Path
    work_folder: Path
    snapshot: Snapshot | None
    """None when a function is submitted, which travels by itself."""
    earlier: Earlier | None = None
    """The run from whose checkpoint this one goes on."""

    def job(self, run_folder: Path) -> JobSpec:
        """The job as it would run from *run_folder*."""
        command = self.request.command
        if self.snapshot is not None:
            command = (str(run_folder / "code" / self.snapshot.script), *command[1:])
        return make_job(
            self.site,
            self.placement,
            self.request,
            command=command,
            python=sys.executable,
            run_folder=str(run_folder),
            work_folder=str(self.work_folder),
            device=self._device(),
        )

    def _device(self) -> Device | None:
        name = self.site.node(self.placement.partition).device
        return catalog.sites.device(name) if name else None


def prepare(
    command: tuple[str, ...],
    given: Mapping[str, Any],
    *,
    name: str | None = None,
    array: str | None = None,
    include: Iterable[str] = (),
    module: bool = False,
    earlier: Earlier | None = None,
) -> Prepared:
    """Apply all layers of settings to the user's *command*, or to that of an *earlier* run.

    *given* are the settings of the command line. Raises RequestError or ConfigError when something cannot be.
    """
    if earlier is not None:
        command, given = _taken_over(earlier, command, given)
    snapshot = None if module or not command else earlier.snapshot() if earlier else plan(command[0], include)
    beside = Path(command[0]).expanduser().absolute().parent if snapshot and not earlier else Path.cwd()
    layers = settings(given, beside=beside)
    site = resolve_site(_value(layers, "site"))
    chosen, flavor_origin = _flavor(site, layers)
    minutes = parse_minutes(_value(layers, "time")) if "time" in layers else site.policy.default_minutes
    placement = flavor.place(
        site, flavor.find(chosen, catalog.flavors()), minutes=minutes, partition=_value(layers, "partition")
    )
    _check_real_devices(site, placement)
    request = Request(
        command=command,
        module=module,
        minutes=minutes,
        account=_value(layers, "account"),
        name=name,
        launcher=_value(layers, "launcher"),
        binding=_value(layers, "binding"),
        container=_value(layers, "container"),
        array=array,
        wishes=_wishes(layers),
        env=_texts(layers, "env"),
        sbatch=_texts(layers, "sbatch"),
        origins=_origins(layers, flavor_origin, name=name, array=array),
    )
    runs = Path(_value(layers, "runs")).expanduser().absolute()
    return Prepared(
        site=site,
        placement=placement,
        request=request,
        runs=runs,
        work_folder=earlier.work_folder if earlier else Path.cwd(),
        snapshot=snapshot,
        earlier=earlier,
    )


def _taken_over(
    earlier: Earlier, command: tuple[str, ...], given: Mapping[str, Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The command and the settings of the *earlier* run, under those *given* now."""
    if command:
        raise RequestError(
            f"--resume takes script and arguments from the earlier run, so {command[0]!r} has no place; leave it out"
        )
    now = {name: value for name, value in given.items() if value not in (None, (), {})}
    return earlier.command, {**earlier.given(), **now}


def _value(layers: Mapping[str, Setting], name: str) -> Any:
    return layers[name].value if name in layers else None


def _texts(layers: Mapping[str, Setting], name: str) -> dict[str, str]:
    return {key: text for key, (text, _) in (_value(layers, name) or {}).items()}


def _wishes(layers: Mapping[str, Setting]) -> Wishes:
    return Wishes.parse(
        **{name: _value(layers, name) for name in ("parallel", "layout", "self_check", "checkpoint", "keep")}
    )


def _flavor(site: Site, layers: Mapping[str, Setting]) -> tuple[str, str]:
    """The flavor's word and where it came from: a setting, or the choice of `switch-model`."""
    if "flavor" in layers:
        return layers["flavor"].value, layers["flavor"].origin
    chosen = state.chosen(site.name)
    if chosen is None:
        raise RequestError(
            "no flavor was named: use --flavor, or choose one for good with `lumi-moai switch-model`; "
            "`lumi-moai flavors` lists them"
        )
    return chosen, "switch-model"


def _origins(
    layers: Mapping[str, Setting], flavor_origin: str, *, name: str | None, array: str | None
) -> dict[str, str]:
    """Who decided each value, for `--explain`."""
    found = {
        "partition": "flavor",
        "time": "site",
        "account": "site",
        "container": "site",
        "name": "command line" if name else "script",
        "array": "command line" if array else "",
        **{key: layer.origin for key, layer in layers.items()},
        "flavor": flavor_origin,
    }
    for key in ("env", "sbatch"):
        found |= {f"{key}.{word}": origin for word, (_, origin) in (_value(layers, key) or {}).items()}
    return found


def real_devices(site: Site) -> int:
    """How many real devices this very host has, by the site's patterns; 0 on sites with a scheduler."""
    return sum(len(glob.glob(pattern)) for pattern in site.device_files)


def _check_real_devices(site: Site, placement: Placement) -> None:
    there = real_devices(site)
    if 0 < there < placement.devices:
        raise RequestError(
            f"flavor {placement.flavor.name} is {placement.devices} devices and this machine has {there}; "
            "choose a smaller one"
        )


def usage(prepared: Prepared) -> Usage:
    """What the job blocks while it runs, for its whole time limit."""
    return billing.usage_of(prepared.site, prepared.placement, minutes=prepared.request.minutes)


def estimate(prepared: Prepared) -> Bill:
    """The price if the job runs until its time limit; for an array, of one of its runs."""
    return billing.bill(prepared.site, usage(prepared))


def template_folders(site: Site) -> list[str]:
    """Where templates are looked for: beside the site's file, then the user's folders, then the bundled ones."""
    beside = [site.template_folder] if site.template_folder else []
    own = [os.fspath(folder) for folder in catalog.folders("templates")]
    return [*beside, *own, os.fspath(root("templates"))]


def script_of(prepared: Prepared, run_folder: Path) -> tuple[JobSpec, Script]:
    """The job and its script as they would be with *run_folder*; touches nothing."""
    job = prepared.job(run_folder)
    return job, render(job, template_folders(prepared.site), prepared.site.template)


def preview_folder(prepared: Prepared) -> Path:
    """The run folder that `render` shows; a submission puts the time behind the name."""
    return prepared.runs / name_of(prepared)


def name_of(prepared: Prepared) -> str:
    """The job's name: the one asked for, else the script's."""
    return prepared.request.name or script_name(prepared.request.command[0])
