"""A device that is not this processor, imitated: tensors that say they are elsewhere and hold numbers here.

Where no GPU is at hand it shows what would fail on one: an operation that mixes its tensors with others is an error, as
is NumPy's view of one. torch's `meta` device lends its name, since autograd knows it in every build of torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
INDEXED = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default)  # by indices of this processor, too


class Elsewhere(torch.Tensor):
    """A tensor on the imitated device."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "Elsewhere":
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=DEVICE, requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held
        return made

    def __repr__(self, **_: Any) -> str:
        return f"Elsewhere({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


def dispatch(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on what its tensors hold, after asking that all of them are in one place."""
    given = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.Tensor)]
    there = [each for each in given if isinstance(each, Elsewhere)]
    here = [each for each in given if not isinstance(each, Elsewhere) and each.dim() > 0]  # numbers may go anywhere
    if there and here and func not in MOVES and not (func in INDEXED and isinstance(args[0], Elsewhere)):
        raise RuntimeError(f"{func} mixes a tensor elsewhere with one of this processor, {tuple(here[0].shape)}")
    wanted = kwargs.get("device")
    if wanted is not None:
        result_there = torch.device(wanted) == DEVICE
    elif func is torch.ops.aten.copy_.default:
        result_there = isinstance(args[0], Elsewhere)
    else:
        result_there = bool(there)
    args, kwargs = tree_map(_held, (args, kwargs))
    if wanted is not None:
        kwargs["device"] = torch.device("cpu")
    out = func(*args, **kwargs)
    if not result_there:
        return out
    return tree_map(lambda each: Elsewhere(each) if isinstance(each, torch.Tensor) else each, out)


def _held(value: Any) -> Any:
    return value.held if isinstance(value, Elsewhere) else value


class _Elsewhere(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return dispatch(func, args, kwargs or {})


@contextmanager
def elsewhere(monkeypatch: Any) -> Iterator[str]:
    """Yield the imitated device's name; inside, tensors can be made there and moved there and back."""
    autocast, tensor = torch.autocast, torch.tensor
    monkeypatch.setattr(torch, "tensor", lambda data, device=None, **named: tensor(data, **named).to(device))
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # whose tensors no wrapper may change
    monkeypatch.setattr(torch, "autocast", lambda kind, *rest, **named: autocast("cpu", *rest, **named))
    with _Elsewhere():
        yield str(DEVICE)
