"""fairseq; its values are text, and lines of validation (`valid_`, `train_`) have other keys.

::

    train_inner | {"loss": "16.446", "wps": "288.7", "num_updates": "2", "lr": "4e-05"}
"""

from .lines import lines

FORMAT = lines(
    "fairseq",
    '"num_updates": "',
    r'"loss": "(?P<loss>{n})"[^\r\n}]*?"wps": "(?P<tokens>{d})"[^\r\n}]*?"num_updates": "(?P<step>\d+)"',
)
