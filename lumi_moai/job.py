"""A request, a site and a placement become a JobSpec: everything decided, nothing left to look up."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import PurePosixPath
from typing import Literal

from .binding import Launch, cpu_masks, topology
from .errors import RequestError, did_you_mean
from .flavor import Placement
from .plan import Wishes
from .planner import Scale, choose
from .site import Cache, Container, Device, JobPolicy, Node, Site, Variable

# Options that a job's correctness rests on, and how to ask for them instead.
GUARDED = {
    "account": "use --account",
    "array": "use --array",
    "chdir": "a job starts where you submit it",
    "cpus-per-gpu": "it gives every task a device of its own and breaks copies between devices",
    "cpus-per-task": "the flavor sets it",
    "error": "each rank has one log for both streams; `lumi-moai logs` shows it",
    "export": "use --env",
    "gpus": "it may spread unevenly over nodes; the flavor asks for devices per node",
    "gpus-per-node": "the flavor sets it",
    "gpus-per-task": "it gives every task a device of its own and breaks copies between devices",
    "gres": "the flavor asks for the devices",
    "job-name": "use --job-name",
    "mem": "the flavor sets it",
    "mem-per-cpu": "the flavor sets the memory of a node",
    "mem-per-gpu": "the flavor sets the memory of a node",
    "nodes": "the flavor sets it",
    "ntasks": "the flavor sets it",
    "ntasks-per-gpu": "it gives every task a device of its own and breaks copies between devices",
    "ntasks-per-node": "the flavor sets it",
    "open-mode": "logs are appended to, so that a requeue loses nothing",
    "output": "logs lie in the run folder",
    "parsable": "the job id is read by lumi-moai",
    "partition": "use --partition",
    "signal": "the runtime listens for the site's signal",
    "time": "use --time",
    "wait": "use --wait",
    "wrap": "the script is what lumi-moai rendered",
}
_SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|PRIVATE_?KEY|ACCESS_?KEY)", re.IGNORECASE)
_ARRAY = re.compile(r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user asked for, all layers applied. `origins` says where each value came from, by its name."""

    command: tuple[str, ...]
    """The script and its own arguments."""
    minutes: int
    module: bool = False
    """The command names a module to run, not a script."""
    account: str | None = None
    name: str | None = None
    launcher: Literal["srun", "torchrun"] = "srun"
    binding: Literal["strict", "warn"] = "strict"
    container: str | None = None
    """Name of a container of the site, `none`, or None for the site's default."""
    array: str | None = None
    wishes: Wishes = field(default_factory=Wishes)
    env: Mapping[str, str] = field(default_factory=dict)
    sbatch: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what Slurm or the shell would misread.

        Raises RequestError.
        """
        if not self.command:
            raise RequestError(
                "no script was named; put it after the options: lumi-moai submit --flavor Small train.py"
            )
        if self.name is not None:
            check_name(self.name)
        if self.array is not None and (not _ARRAY.fullmatch(self.array) or ":0" in self.array):
            raise RequestError(f"--array {self.array!r} is not a list of indices; write 0-9, 1,3,5 or 0-99%10")
        for name, value in self.env.items():
            _check_variable(name, value)
        for option in self.sbatch:
            _check_option(option)


def check_name(name: str) -> None:
    """Refuse a job name that cannot stand in file names and script lines.

    Raises RequestError.
    """
    if not re.fullmatch(r"[\w.+=@,-]{1,128}", name) or name.startswith("-"):
        raise RequestError(
            f"{name!r} cannot be a job name: it becomes part of file names; use up to 128 letters, digits and ._+=@,-"
        )


def array_indices(array: str | None) -> tuple[int, ...]:
    """The indices that `--array` asks for; none for a job that is no array.

    >>> array_indices("0-4:2,7%2")
    (0, 2, 4, 7)
    """
    indices: list[int] = []
    for part in (array or "").partition("%")[0].split(","):
        first, _, rest = part.partition("-")
        last, _, stride = rest.partition(":")
        if first:
            indices.extend(range(int(first), int(last or first) + 1, int(stride or 1)))
    return tuple(indices)


def _check_variable(name: str, value: str) -> None:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise RequestError(f"{name!r} cannot be a variable name; write --env NAME=VALUE")
    if _SECRET.search(name) and value:
        raise RequestError(
            f"{name} looks like a secret, and --env would write it into the script; export it in your shell instead: "
            "Slurm carries your environment into the job"
        )


def _check_option(option: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", option):
        raise RequestError(f"{option!r} is not a long sbatch option; write --sbatch qos=NAME, without dashes in front")
    if option in GUARDED:
        raise RequestError(f"--sbatch {option} is not allowed: {GUARDED[option]}")


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """Everything the script needs. Paths are absolute, memory is GiB per node, `minutes` the time limit."""

    name: str
    site: str
    flavor: str
    account: str | None
    partition: str
    minutes: int
    nodes: int
    devices_per_node: int
    tasks_per_node: int
    cpus_per_task: int
    memory_gib: int
    masks: tuple[str, ...]
    """CPU masks by local rank; empty where Slurm chooses the cores."""
    launch: Launch
    wishes: Wishes
    """How the runtime is to parallelise the script."""
    command: tuple[str, ...]
    module: bool
    """The first word of `command` is a module (`python -m`), not a script."""
    python: str
    container: Container | None
    environment: tuple[Variable, ...]
    caches: tuple[Cache, ...]
    policy: JobPolicy
    signal_seconds: int
    array: str | None
    sbatch: Mapping[str, str]
    run_folder: str
    work_folder: str
    origins: Mapping[str, str]

    @property
    def devices(self) -> int:
        """Devices of the whole job."""
        return self.nodes * self.devices_per_node

    @property
    def launcher(self) -> str:
        """`srun`, `torchrun` or `local`."""
        return self.launch.launcher

    def origin(self, name: str) -> str:
        """Who decided the value called *name*: flavor, site, a settings file, the environment or the command line."""
        return self.origins.get(name, "site")

    def as_json(self) -> dict[str, object]:
        """The `job` part of `job.json`."""
        plain = asdict(self)
        del plain["launch"], plain["wishes"]  # stand beside it, for the ranks
        return plain


def _with_device(launch: Launch, device: Device | None) -> Launch:
    if device is None:
        return launch
    return replace(launch, peak_tflops=device.peak_tflops, monitor=device.monitor, per_package=device.per_package)


def make_job(
    site: Site,
    placement: Placement,
    request: Request,
    *,
    command: tuple[str, ...],
    python: str,
    run_folder: str,
    work_folder: str,
    device: Device | None = None,
) -> JobSpec:
    """Decide everything about a job.

    *device* is what the node has, where that is known. *command* is the request's, with the script as
    the nodes see it; *python* runs the job where no container does; *run_folder* is where everything of it lies;
    *work_folder* is where the script starts. Raises RequestError when the site does not allow what was asked for.
    """
    node = site.node(placement.partition)
    _check_account(site, request.account)
    _check_layout(request.wishes, placement)
    per_node = placement.devices_per_node if request.launcher == "srun" else 1
    launch = _with_device(_launch(site, node, placement, request), device)
    container = _container(site, request.container)
    return JobSpec(
        name=request.name or script_name(request.command[0]),
        site=site.name,
        flavor=placement.flavor.name,
        account=request.account,
        partition=placement.partition.name,
        minutes=request.minutes,
        nodes=placement.nodes,
        devices_per_node=placement.devices_per_node,
        tasks_per_node=per_node,
        cpus_per_task=placement.cores_per_device * placement.devices_per_node // per_node,
        memory_gib=placement.memory_gib,
        masks=_masks(node, launch),
        launch=launch,
        wishes=request.wishes,
        command=command,
        module=request.module,
        python=container.python if container else python,
        container=container,
        environment=_environment(site, placement, request, container),
        caches=site.caches,
        policy=site.policy,
        signal_seconds=_signal_seconds(site.policy.signal_seconds, request.minutes),
        array=request.array,
        sbatch=dict(request.sbatch),
        run_folder=run_folder,
        work_folder=work_folder,
        origins=dict(request.origins),
    )


def _signal_seconds(wished: int, minutes: int) -> int:
    """*wished*, but at most half of the time.

    Slurm may send a signal a minute early, and one that comes before the ranks listen ends the job. So in a job of
    one minute it is sent at its end.
    """
    return min(wished, minutes * 30, max(1, (minutes - 1) * 60))


def script_name(script: str) -> str:
    """A job name made of the file name of *script*: what cannot stand in a name becomes `_`."""
    return re.sub(r"[^\w.+=@,-]", "_", PurePosixPath(script).stem).lstrip("-")[:128] or "run"


def _check_layout(wishes: Wishes, placement: Placement) -> None:
    """Refuse degrees that these devices cannot have now, and not when the job has waited for them.

    The script's own line may add some, so what all of them amount to (`dp`) is looked at when it runs.
    """
    if wishes.mode != "script":
        per_node = placement.devices_per_node
        choose(
            replace(wishes.layout, dp=None),
            Scale(world_size=per_node * placement.nodes, local_world_size=per_node),
        )


def _check_account(site: Site, account: str | None) -> None:
    policy = site.policy
    hint = f"; {policy.account_hint}" if policy.account_hint else ""
    if account is None:
        if policy.account_required:
            raise RequestError(
                f"site {site.name} bills every job to a project, and none is named: use --account, $SBATCH_ACCOUNT "
                f"or `account:` in the user's config.yaml{hint}"
            )
        return
    if policy.account_pattern and not re.fullmatch(policy.account_pattern, account):
        raise RequestError(f"{account!r} is not a project of site {site.name}{hint}")


def _container(site: Site, name: str | None) -> Container | None:
    wanted = name or site.default_container
    if wanted is None or wanted == "none":
        return None
    if wanted not in site.containers:
        known = ["none", *site.containers]
        raise RequestError(
            f"site {site.name} has no container {wanted!r}{did_you_mean(wanted, known)} (it has {', '.join(known)})"
        )
    return site.containers[wanted]


def _launch(site: Site, node: Node, placement: Placement, request: Request) -> Launch:
    local = site.scheduler == "local" and request.launcher == "srun"
    return Launch(
        world_size=placement.devices,
        nodes=placement.nodes,
        devices_per_node=placement.devices_per_node,
        launcher="local" if local else request.launcher,
        binding=request.binding,
        whole_node=placement.whole_node,
        bind=node.bind,
        signal=site.policy.signal,
        topology=topology(node),
    )


def _masks(node: Node, launch: Launch) -> tuple[str, ...]:
    """Masks are legal on whole nodes only, and torchrun starts one task, which keeps all cores."""
    if not (launch.bind and launch.whole_node and launch.launcher == "srun"):
        return ()
    return cpu_masks([slot.cores for slot in node.slots])


def _environment(
    site: Site, placement: Placement, request: Request, container: Container | None
) -> tuple[Variable, ...]:
    """The site's variables that apply, then the user's; the user's replace the site's of the same name."""
    wanted = [
        variable
        for variable in site.environment
        if variable.name not in request.env
        and placement.nodes >= variable.min_nodes
        and (container is not None or not variable.only_containers)
    ]
    own = [
        Variable(name=name, value=value, reason="asked for", source=request.origins.get(f"env.{name}", "command line"))
        for name, value in request.env.items()
    ]
    return (*wanted, *own)
