"""NeMo 2; its times are those of one step.

::

    Training epoch 0, iteration 1/99 | lr: 1e-05 | reduced_train_loss: 10.9 | train_step_timing in s: 3.11
"""

from .lines import lines

FORMAT = lines(
    "nemo",
    "Training epoch ",
    r"\bTraining epoch (?P<epoch>\d+), iteration (?P<step>\d+)/(?P<total>\d+) \|{also}[^\r\n]*?"
    r"\breduced_train_loss: (?P<loss>{n})",
    also=[r"\btrain_step_timing in s: (?P<seconds>{n})", r"\bTFLOPS_per_GPU: (?P<tflops>{n})"],
)
