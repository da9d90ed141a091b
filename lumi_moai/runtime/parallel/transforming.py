"""Whether a function of torch.func is at work: what it calls sees single rows, or tensors without numbers."""

import torch


def is_transforming() -> bool:
    """Whether `torch.func.grad`, `vmap` or their like is at work."""
    # Not asked while torch.compile reads code, which does not know the question.
    return not torch.compiler.is_dynamo_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
