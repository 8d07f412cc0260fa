"""Running a model and restoring its state afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hvx.capture.recorder import ProductRecorder


@contextmanager
def preserve_state(
    model: nn.Module, recorder: ProductRecorder, inputs: Sequence[Tensor] = ()
) -> Iterator[None]:
    """Within the context, a model is in evaluation mode; afterwards its state is restored.

    The state is: training flags, attributes that its forward sets, lists, dicts and sets that it fills,
    parameters and buffers that it replaces or writes to, and the state of the random number generators.

    Args:
        model: the model that runs.
        recorder: reports each tensor that is about to be written to.
        inputs: tensors of the caller whose memory the model reads; they are restored too.
    """
    with ExitStack() as stack:
        stack.enter_context(_preserved_tensors([*model.parameters(), *inputs], recorder))
        cuda = {t.device.index for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"}
        stack.enter_context(torch.random.fork_rng(sorted(cuda)))
        for module in dict.fromkeys(model.modules()):
            stack.enter_context(_preserved_module(module))
            module.training = False
            if isinstance(module, nn.DataParallel):
                # Replicas run in other threads, where operations are not recorded.
                module.device_ids = module.device_ids[:1]
        yield


@contextmanager
def _preserved_module(module: nn.Module) -> Iterator[None]:
    training = module.training
    buffers = {name: (b, b.detach().clone()) for name, b in module.named_buffers(recurse=False)}
    scripted = isinstance(module, torch.jit.ScriptModule)
    attributes = {} if scripted else dict(vars(module))
    containers = _containers(attributes.values())
    try:
        yield
    finally:
        for container, content in containers:
            _refill(container, content)
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


@contextmanager
def _preserved_tensors(tensors: Sequence[Tensor], recorder: ProductRecorder) -> Iterator[None]:
    """Restores tensors that are written to (``nn.Embedding(max_norm=…)``) from a copy taken before."""
    by_storage = {tensor.untyped_storage()._cdata: tensor for tensor in tensors if _is_plain(tensor)}
    copies: dict[int, Tensor] = {}

    def before_write(tensor: Tensor) -> None:
        key = tensor.untyped_storage()._cdata if _is_plain(tensor) else 0
        if key in by_storage and key not in copies:
            copies[key] = by_storage[key].detach().clone()

    recorder.before_write = before_write
    try:
        yield
    finally:
        with torch.no_grad():
            for key, values in copies.items():
                by_storage[key].detach().copy_(values)


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and not is_lazy(tensor)


def _containers(values: Iterable[Any]) -> list[tuple[Any, Any]]:
    """Lists, dicts and sets among values, at any depth, each with a copy of its content."""
    containers: dict[int, tuple[Any, Any]] = {}
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, list | dict | set) and id(value) not in containers:
            containers[id(value)] = value, value.copy()
            waiting += value.values() if isinstance(value, dict) else value
    return list(containers.values())


def _refill(container: Any, content: Any) -> None:
    if isinstance(container, list):
        container[:] = content
    else:
        container.clear()
        container.update(content)
