"""A second device without any GPU: its tensors are computed on the CPU, and refuse to meet tensors that really live there, as CUDA's do.

Within `with pretend_device():` whatever is moved to `DEVICE`, or made there, becomes such a tensor; generators and autocast know the device too. Its name is
that of torch's device without data, "meta", with the number 0: torch knows it everywhere, and it needs no hardware. It allows what CUDA allows:

- a CPU tensor of no dimension beside another operand of an elementwise operation (`TensorIterator`'s "CPU scalars"), in `torch.where`, to fill or to put;
- CPU indices in `x[index]` and `x[index] = value` (torch: "indices should be either on cpu or on the same device"), but not in `gather`, `index_select`, ...;
- copies: `.to`, `.copy_`, so also `load_state_dict` and `x[3] = value`;
- noise of a generator of the device that the noise is made on (torch: "Expected a 'cuda' device type for generator but found 'cpu'").

Modes of torch belong to a thread: in another one only what is there already can be used. Autocast rounds nothing.

`python tests/run.py --pretend` runs everything with it as the device that is chosen when none is given, as on a machine with a GPU. There products and
convolutions are rounded otherwise than on the CPU, as a GPU's are, so that what compares the bits of two devices fails.
`python tests/pretend.py NOTEBOOK` runs the fast cells of one notebook so.
"""
import os
import sys
from contextlib import ExitStack, nullcontext
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "meta"  # as a user gives it, without a number
DEVICE = torch.device(NAME, 0)  # as its tensors say it
ops = torch.ops.aten
MOVES = {ops._to_copy.default, ops.copy_.default}
INDEXING = {ops.index.Tensor, ops.index_put.default, ops.index_put_.default, ops._index_put_impl_.default, ops._unsafe_index.Tensor}
FILLING = {ops.where.self, ops.fill.Tensor, ops.fill_.Tensor, ops.masked_fill.Tensor, ops.masked_fill_.Tensor}
ROUNDED = {ops.mm.default, ops.addmm.default, ops.bmm.default, ops.convolution.default}
FROM_PYTHON = {torch.tensor, torch.as_tensor, torch.asarray}  # torch answers these for "meta" without asking anybody
PRETENDING = bool(os.environ.get("SPECGEN_PRETEND"))  # whether it is the device of all tests
rounding = False  # whether products and convolutions come out otherwise than on the CPU


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

    is_meta = False  # it holds values

    def set_data(self, other):
        torch.Tensor.data.__set__(self, other)
        self.values_ = other.values_

    data = property(torch.Tensor.detach, set_data)

    def tolist(self):
        return self.cpu().tolist()

    def numpy(self, *, force=False):
        if force:
            return self.detach().cpu().numpy()
        raise TypeError(f"can't convert {DEVICE} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")

    def new_tensor(self, data, dtype=None, device=DEVICE, **settings):
        return torch.tensor(data, dtype=dtype or self.dtype, device=device, **settings)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


class PretendGenerator(torch.Generator):
    "A generator that says it lives on `DEVICE`; its numbers are those of the CPU's."

    device = DEVICE


def is_there(device) -> bool:
    return device is not None and torch.device(device).type == NAME


def each(change, x):
    "The change of every tensor in operands, which may lie in lists."
    if isinstance(x, torch.Tensor):
        return change(x)
    return type(x)(each(change, part) for part in x) if isinstance(x, (list, tuple)) else x


def as_index(x):
    "Lists of numbers as tensors on the CPU: torch would make a tensor without values of them."
    return torch.as_tensor(x) if isinstance(x, (list, np.ndarray)) else x


def values(x):
    return x.values_ if isinstance(x, Pretend) else x


def written(function, args) -> list:
    "The tensors that an operation changes."
    pairs = zip(args, function._schema.arguments, strict=False)
    return [x for x, a in pairs if a.alias_info and a.alias_info.is_write and isinstance(x, torch.Tensor)]


def check_devices(function, args, tensors) -> None:
    "Raises RuntimeError where CUDA would for these operands, some of which are on the pretend device."
    strangers = [x for x in tensors if not isinstance(x, Pretend)]
    elementwise = torch.Tag.pointwise in function.tags and len(tensors) == 2
    scalars = elementwise or function in INDEXING | FILLING or function.name().startswith("aten::_foreach")
    indices = args[1] if function in INDEXING and isinstance(args[0], Pretend) else ()
    for x in strangers:
        if x.device.type == NAME:
            raise RuntimeError(f"{function}: a tensor of the pretend device was made outside of `pretend_device`, or in another thread, and holds no values")
        if not (any(x is i for i in indices) or scalars and x.ndim == 0 and not any(x is w for w in written(function, args))):
            raise RuntimeError(f"{function}: some tensors are on the CPU, some on the pretend device")


def compute(function, args, kwargs):
    "One operation, on the values; its result is where its operands are, or where it was asked for."
    tensors = []
    each(tensors.append, (*args, *kwargs.values()))
    there, given = any(isinstance(x, Pretend) for x in tensors), args
    if there and function not in MOVES:
        check_devices(function, args, tensors)
    if kwargs.get("device") is not None:
        there, kwargs = is_there(kwargs["device"]), {**kwargs, "device": torch.device("cpu")}
    elif function in MOVES:
        there = isinstance(args[0], Pretend)
    args, kwargs = each(values, args), {name: each(values, x) for name, x in kwargs.items()}
    out = function(*args, **kwargs)
    if not there:
        return out
    if rounding and function in ROUNDED:
        tf32 = function is ops.convolution.default and torch.backends.cudnn.allow_tf32
        out = out * (1 + (2**-13 if tf32 else 2**-20))
    if torch.Tag.inplace_view in function.tags:
        with no_dispatch():
            function(*given, **kwargs)  # so that the wrapper, too, has its new shape
    changed = written(function, given)
    if len(changed) == 1 and isinstance(out, torch.Tensor):
        return changed[0]
    return each(Pretend, out)


class Operations(TorchDispatchMode):
    "Makes and moves tensors to the pretend device."

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return compute(function, args, kwargs or {})


class Calls(TorchFunctionMode):
    "What has to be seen before torch turns a call into operations: tensors from Python's numbers, and generators."

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for generator in (x for x in (*args, *kwargs.values()) if isinstance(x, torch.Generator)):
            like = next((x for x in args if isinstance(x, torch.Tensor)), None)
            device = kwargs.get("device") or (like.device if like is not None else "cpu")
            if is_there(device) != isinstance(generator, PretendGenerator):
                wanted, found = torch.device(device).type, generator.device.type
                raise RuntimeError(f"{function.__name__}: Expected a '{wanted}' device type for generator but found '{found}'")
        if function in FROM_PYTHON and is_there(kwargs.get("device")) and not isinstance(args[0], torch.Tensor):
            return function(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], Pretend):
            index = tuple(map(as_index, args[1])) if isinstance(args[1], tuple) else as_index(args[1])
            args = args[0], index, *args[2:]
        return function(*args, **kwargs)


def knowing(real):
    "torch.Generator that also makes those of the pretend device."

    class Kind(type):
        def __instancecheck__(cls, x):
            return isinstance(x, real)

    class Generator(metaclass=Kind):
        def __new__(cls, device="cpu"):
            return PretendGenerator() if is_there(device) else real(device)

    return Generator


class pretend_device(ExitStack):
    "Within, the device can be named."

    def __enter__(self):
        super().__enter__()
        autocast, available = torch.autocast, torch.amp.is_autocast_available
        for name, change in {
            "torch.Generator": knowing(torch.Generator),
            "torch.autocast": lambda device_type, *args, **kwargs: nullcontext() if device_type == NAME else autocast(device_type, *args, **kwargs),
            "torch.amp.is_autocast_available": lambda device_type: device_type == NAME or available(device_type),
        }.items():
            self.enter_context(patch(name, change))
        swaps = torch.__future__.get_swap_module_params_on_conversion()
        self.callback(torch.__future__.set_swap_module_params_on_conversion, swaps)
        torch.__future__.set_swap_module_params_on_conversion(True)  # a module's parameters stay the same objects when it is moved, as on CUDA
        self.enter_context(Operations())
        self.enter_context(Calls())
        return self


def become_default() -> pretend_device:
    "From now on the pretend device is the one that `specgen.core.default_device` chooses. Closing the answer ends it."
    global rounding
    from specgen.core import process_state

    rounding = True
    process_state().device = DEVICE
    return pretend_device().__enter__()


def run_notebook(path: Path) -> bool:
    "Whether the fast cells of a notebook run on the pretend device."
    from nbdev.config import get_config
    from nbdev.test import test_nb

    with become_default():
        return test_nb(path.resolve(), skip_flags=(get_config().tst_flags or "").split(), basepath=Path(__file__).parents[1])[0]


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"
    sys.exit(not run_notebook(Path(sys.argv[1])))
