"""A second device without any GPU: its tensors are computed on the CPU, and refuse to meet tensors that really live there.

Within `with pretend_device():` whatever is moved to `DEVICE`, or made there, becomes such a tensor.
"""
import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

DEVICE = torch.device("meta")  # a name that torch knows and that needs no hardware
MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class Pretend(torch.Tensor):
    "A tensor that says it lives on `DEVICE`, around one that holds the values."

    @staticmethod
    def __new__(cls, values):
        layout = values.shape, values.stride(), values.storage_offset()
        return torch.Tensor._make_wrapper_subclass(cls, *layout, dtype=values.dtype, device=DEVICE)

    def __init__(self, values):
        self.values_ = values

    def __repr__(self):
        return f"Pretend({self.values_})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


def compute(function, args, kwargs):
    "One operation, on the values; its result is where its operands are, or where it was asked for."
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    there = any(isinstance(x, Pretend) for x in tensors)
    if there and function not in MOVES and any(x.ndim and not isinstance(x, Pretend) for x in tensors):
        raise RuntimeError(f"{function}: some tensors are on the CPU, some on the pretend device")
    given = args, kwargs
    if kwargs.get("device") is not None:
        there, kwargs = torch.device(kwargs["device"]) == DEVICE, {**kwargs, "device": torch.device("cpu")}
    elif function in MOVES:
        there = isinstance(args[0], Pretend)
    args, kwargs = tree_map(lambda x: x.values_ if isinstance(x, Pretend) else x, (args, kwargs))
    out = function(*args, **kwargs)
    if not there:
        return out
    if torch.Tag.inplace_view in function.tags:
        with no_dispatch():
            function(*given[0], **given[1])  # so that the wrapper, too, has its new shape
    written = [x for x, a in zip(given[0], function._schema.arguments, strict=False) if a.alias_info and a.alias_info.is_write]
    if len(written) == 1 and isinstance(written[0], torch.Tensor):
        return written[0]
    return tree_map(lambda x: Pretend(x) if isinstance(x, torch.Tensor) else x, out)


class pretend_device(TorchDispatchMode):
    "Within, the device can be named."

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})
