"""Running a model and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Within, a model is in evaluation mode; afterwards it is as it was.

    That holds for training flags, attributes that its forward sets, buffers that it replaces or writes into,
    and the state of the random number generators. Parameters and their ``grad`` are not written to.
    """
    with ExitStack() as stack:
        cuda = {t.device.index for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"}
        stack.enter_context(torch.random.fork_rng(sorted(cuda)))
        for module in dict.fromkeys(model.modules()):
            stack.enter_context(_as_it_was(module))
            module.training = False
            if isinstance(module, nn.DataParallel):
                # Replicas run in threads of their own, where nothing would be seen.
                module.device_ids = module.device_ids[:1]
        yield


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    training = module.training
    buffers = {name: (b, b.detach().clone()) for name, b in module.named_buffers(recurse=False)}
    scripted = isinstance(module, torch.jit.ScriptModule)
    attributes = {} if scripted else dict(vars(module))
    try:
        yield
    finally:
        if not scripted:
            vars(module).clear()
            vars(module).update(attributes)
        for name, (buffer, values) in buffers.items():
            _restore(module, name, buffer, values)
        module.training = training


@torch.no_grad()
def _restore(module: nn.Module, name: str, buffer: Tensor, values: Tensor) -> None:
    if getattr(module, name) is not buffer:
        setattr(module, name, buffer)
    if not torch.equal(buffer, values):
        buffer.copy_(values)
