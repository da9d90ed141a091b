"""One virtual accelerator on LUMI and other Slurm GPU clusters.

`lumi_moai.enable_advanced_parallelization()` is the one line of a training script; `lumi_moai.submit(...)` is the
command line's `submit` for Python. Both import what they need when they are called, so that importing this package
costs nothing and needs nothing.
"""

__version__ = "0.1.0"
