"""Hugging Face's Trainer, and LLaMA-Factory and axolotl, which use it: a Python dict for each logged step.

::

    {'loss': 2.2818, 'grad_norm': 1.41, 'learning_rate': 2.5000e-06, 'epoch': 0.29}
    {'train_runtime': 919.097, 'train_samples_per_second': 1.088, 'train_steps_per_second': 0.017, 'epoch': 1.0}

The dict has no step; the progress bar beside it does, but of any loop. `eval_` dicts are no steps.
"""

from .lines import lines

FORMAT = lines(
    "hf-trainer",
    "'epoch': ",
    r"\{'loss': '?(?P<loss>{n})'?,{also}[^{}\r\n]*'epoch': (?:'?(?P<progress>{n})'?)?[^{}\r\n]*\}"
    r"|\{'train_runtime': [^{}\r\n]*?'train_samples_per_second': '?(?P<samples>{n})'?,[^{}\r\n]*\}",
    also=[r"'memory/max_mem(?:ory)?_active(?:\(gib\))?': '?(?P<gib>{d})"],
    one_line=False,
)
