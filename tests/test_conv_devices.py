"""The layer on a device that has neither float64 nor linear algebra, such as MPS: a stand-in."""

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wic_layers import WIC, det_loss, functional

LIMITED = torch.device("mps")


class Limited(Tensor):
    """A tensor that says it is on such a device, and refuses what that cannot do."""

    device = LIMITED
    is_cpu = False

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if "linalg" in name or name in ("inv_ex", "qr", "matrix_exp"):
            raise NotImplementedError(f"{name} on a device that lacks it")
        if func is Tensor.cpu:
            with torch._C.DisableTorchFunctionSubclass():
                return args[0].as_subclass(Tensor) * 1
        result = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(result, Tensor) and result.dtype == torch.float64:
            raise TypeError(f"{name} would make float64 on a device that lacks it")
        return result


class ToTheDevice(TorchFunctionMode):
    """``tensor.to(device)`` and ``torch.full(device=)`` arrive there."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is Tensor.to and LIMITED in (*args[1:], kwargs.get("device")):
            if args[0].dtype == torch.float64 and torch.float32 not in args:
                raise TypeError("float64 to a device that lacks it")
            others = [value for value in args[1:] if value != LIMITED]
            kwargs.pop("device", None)
            moved = args[0].to(*others, **kwargs) if others or kwargs else args[0] * 1
            return moved.as_subclass(Limited)
        if kwargs.get("device") == LIMITED:
            kwargs.pop("device")
            return func(*args, **kwargs).as_subclass(Limited)
        return func(*args, **kwargs)


KINDS = [
    ((4, 6), {}),
    ((5, 5), {}),
    ((6, 4), {}),
    ((6, 4), {"completion": "repeat"}),
    ((6, 4), {"rows": "m"}),
    ((6, 4), {"rows": 9, "completion": "repeat"}),
    ((5, 5), {"parametrization": "lu"}),
    ((6, 4), {"parametrization": "lu"}),
    ((4, 6), {"parametrization": "orthogonal"}),
]


def moved(layer):
    """The layer on that device."""
    for module in layer.modules():
        for name, value in list(module._parameters.items()):
            if value is not None:
                module._parameters[name] = nn.Parameter(value.detach().as_subclass(Limited))
        for name, value in list(module._buffers.items()):
            module._buffers[name] = value.as_subclass(Limited)
    return layer


@pytest.mark.parametrize(("shape", "arguments"), KINDS)
@pytest.mark.parametrize("is_training", [True, False])
def test_the_algebra_runs_on_the_cpu_and_its_results_on_the_device(shape, arguments, is_training):
    there = WIC(*shape, **arguments).train(is_training)
    x, y = torch.randn(2, shape[0], 4, 4), torch.randn(2, shape[1], 4, 4)
    expected = (
        there(x),
        there.inverse(y),
        there.with_log_det(x, log_det="volume")[1],
        det_loss(there),
    )
    here = moved(WIC(*shape, **arguments).train(is_training))
    with torch.no_grad():
        for old, new in zip(there.parameters(), here.parameters(), strict=True):
            new.as_subclass(Tensor).copy_(old)
        for old, new in zip(there.buffers(), here.buffers(), strict=True):
            new.as_subclass(Tensor).copy_(old)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients), ToTheDevice():
            results = (
                here(x.as_subclass(Limited)),
                here.inverse(y.as_subclass(Limited)),
                here.with_log_det(x.as_subclass(Limited), log_det="volume")[1],
                det_loss(here),
            )
        for result, one in zip(results, expected, strict=True):
            assert result.device == LIMITED
            assert result.dtype == torch.float32
            assert torch.allclose(result.as_subclass(Tensor), one, atol=1e-5)


@pytest.mark.parametrize("name", ["left_inverse", "right_inverse", "square_inverse", "log_volume"])
def test_functions_of_a_kernel_too(name):
    kernel = torch.randn(4, 4)
    with ToTheDevice():
        result = getattr(functional, name)(kernel.as_subclass(Limited))
    assert result.device == LIMITED
    assert torch.allclose(result.as_subclass(Tensor), getattr(functional, name)(kernel))
