"""DeepSpeed-Chat's reinforcement learning: the actor's loss, which may be negative.

::

    epoch: 0|step: 0|ppo_ep: 1|act_loss: 0.2099609375|cri_loss: 0.12042236328125|unsuper_loss: 0.0
"""

from .lines import lines

FORMAT = lines(
    "deepspeed-chat",
    "|act_loss: ",
    r"\|step: (?P<step>\d+)\|ppo_ep: \d+\|act_loss: (?P<loss>{n})",
)
