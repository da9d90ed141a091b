"""Any progress bar of tqdm's that shows a loss: it is that of a training, whatever stands in front of it.

::

    Steps:   1%|1         | 10/1000 [00:31<50:10,  1.21it/s, lr=1e-5, step_loss=0.0131]
    Epoch 0: :   1%|1     | 10/1000 [00:31<50:10, reduced_train_loss=10.90, global_step=10.0]

A bar of an evaluation says so in front. This counts only in a log that has no other format.
"""

from .lines import lines

FORMAT = lines(
    "progress-bar",
    "%|",
    r"(?:(?<![^\r\n])|(?<=[\]A]))(?![^\r\n|]*(?i:val|eval|test|predict))"
    r"(?:[^\r\n|]*?\b(?i:epochs?):?[ =\[]*(?P<epoch>\d{1,9})\b)?[^\r\n|]*?"
    r"\d+%\|[^\r\n|]*\| (?P<step>\d+)/(?P<total>\d+) \[[\d:]+<[^\],]*"
    r"(?:, +(?:(?P<per_second>{d})it/s|(?P<seconds>{d})s/it))?"
    r"[^\]\r\n]*?[ ,\[](?:(?:train|step|reduced_train|avg|batch|running|training|total|mean)[_/ ])?(?i:loss)(?:_step)?"
    r"(?:=|: ?)(?P<loss>{n})",
    weak=True,
    one_line=False,
)
