"""A device that any machine has: torch's ``meta``, made to behave as an accelerator does."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Elsewhere(TorchDispatchMode):
    """Tensors on ``meta`` may not be mixed with others; what is read of them is made up."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        devices = {x.device.type for x in tensors if x.ndim or x.device.type != "cpu"}
        if function is torch.ops.aten._local_scalar_dense.default and devices == {"meta"}:
            return True if tensors[0].dtype is torch.bool else 1.0
        if function is torch.ops.aten._to_copy.default and devices == {"meta"}:
            target = kwargs.get("device")
            if target is not None and target.type == "cpu":
                return torch.zeros(tensors[0].shape, dtype=kwargs.get("dtype", tensors[0].dtype))
        elif function is not torch.ops.aten.copy_.default and len(devices) > 1:
            raise RuntimeError(f"{function} mixes tensors on {' and '.join(sorted(devices))}")
        return function(*args, **kwargs)
