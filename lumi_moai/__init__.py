"""One virtual accelerator on LUMI and other Slurm GPU clusters.

`lumi_moai.enable_advanced_parallelization()` is the one line of a training script; `lumi_moai.submit(...)` is the
command line's `submit` for Python. Both import what they need when they are called, so that importing this package
costs nothing and needs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from .launch.run import Run

__version__ = "0.1.0"
__all__ = ["enable_advanced_parallelization", "submit"]


def enable_advanced_parallelization(**options: Any) -> None:
    """Train what follows on all devices of the flavor; the script's batch is the global batch.

    The one line of a script written for one device. Outside of a lumi-moai job, or on one device, it does nothing.
    *options* are MoAI's: pipeline_parallel, num_stages, num_micro_batches, activation_recomputation,
    distribute_parameter, mixed_precision, each `'auto'` or a value. Raises RequestError for one that cannot be kept.
    """
    from .runtime.parallel import enable

    enable(**options)


def submit(target: str | os.PathLike[str] | Callable[..., Any], *args: Any, **given: Any) -> Run:
    """Submit a script with its arguments, or a function with its arguments, and return a `Run` at once.

    *given* are the options of `lumi-moai submit`: flavor, site, account, partition, time, name, env, container,
    launcher, binding, array, sbatch, include, runs. The Run has `.job_id`, `.folder`, `.state`, `.wait()`,
    `.logs(rank)`, `.cancel()`, `.report()`, and `.result()` for a function. Raises LumiMoaiError when it cannot be.

    >>> run = lumi_moai.submit("train.py", "--batch-size", 32, flavor="8xLarge")  # doctest: +SKIP
    >>> run.wait(), run.report().billing_units  # doctest: +SKIP
    """
    from .launch.run import submit_target

    return submit_target(target, *args, **given)
