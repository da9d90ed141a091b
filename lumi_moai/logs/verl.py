"""verl; of reinforcement learning the actor's loss, which may be negative. Rates are those of one device.

::

    step:3 - actor/pg_loss:0.001 - actor/kl_loss:0.002 - perf/time_per_step:55.5 - perf/throughput:1234.5
    step:3 - train/loss:1.25 - train/lr(1e-3):0.01 - train/time(s):2.5
"""

from .lines import lines

FORMAT = lines(
    "verl",
    "step:",
    r"\bstep:(?P<step>\d+)(?= - [^\r\n]*?\b(?:actor/|perf/|train/loss:)){also}",
    also=[
        r" - (?:actor/pg_loss|train/loss):(?:np\.float\d+\()?(?P<loss>{d}|-{d}|nan)",
        r" - (?:perf/time_per_step|train/time\(s\)):(?:np\.float\d+\()?(?P<seconds>{d})",
        r" - perf/throughput:(?:np\.float\d+\()?(?P<tokens>{d})",
        r" - perf/mfu/actor:(?:np\.float\d+\()?(?P<mfu>{d})",
        r" - (?:perf|actor/perf)/max_memory_allocated_gb:(?:np\.float\d+\()?(?P<gib>{d})",
    ],
    scope="per_device",
    reach=16384,
)
