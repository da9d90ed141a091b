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
    r"(?=(?:, +(?={d}s/(?:it|ba|steps?|batch)\b)|[^\]\r\n]*?\btrain_step_timing in s=)(?P<seconds>{d}))?"
    r"(?:, +(?P<per_second>{d})(?:it|ba|steps?|batch|batches)/s)?"
    r"[^\]\r\n]*?[ ,\[](?:(?:train|step|reduced_train|avg|batch|running|training|total|mean|gpt|lm|policy|actor)[_/ ])?"
    r"(?i:loss)(?:_step|/train)?(?:/total)?(?:=|: ?)(?P<loss>{n})",
    weak=True,
    one_line=False,
    reach=400,
)
