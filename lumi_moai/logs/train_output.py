"""What Hugging Face's Trainer returns, printed: the end of a run in a notebook.

::

    TrainOutput(global_step=250, training_loss=1.553, metrics={'train_samples_per_second': 2.063, ...})
"""

from .lines import lines

FORMAT = lines(
    "hf-train-output",
    "TrainOutput(",
    r"TrainOutput\(global_step=(?P<step>\d+), training_loss=(?P<loss>{n}),"
    r"[^\r\n)]*?'train_samples_per_second': (?P<samples>{n})",
)
