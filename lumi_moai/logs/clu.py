"""JAX's clu writers, which Flax' examples, T5X and Big Vision use; a line of another collection is no step.

::

    logging_writer.py:48] [100] accuracy=0.1, learning_rate=0.1, loss=2.5, steps_per_second=2.0
"""

from .lines import lines

FORMAT = lines(
    "clu",
    "logging_writer.py:",
    r"logging_writer\.py:\d+\] \[(?P<step>\d+)\](?: collection=train)? (?=[\w/]+=[^\r\n]*(?:loss|per_second)=){also}",
    also=[
        r"[ ,/](?:train_|train/|training_)?loss=(?P<loss>{n})",
        r"(?<!\w)steps_per_second=(?P<per_second>{d})",
        r"\b(?:seqs|examples|samples)_per_second=(?P<samples>{n})",
        r"\b(?:target_)?tokens_per_second=(?P<tokens>{n})",
    ],
)
