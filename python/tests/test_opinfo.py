"""PyTorch's own sample inputs of its operations: values within the stated bounds of float64, and
gradients."""

import warnings

import numpy as np
import pytest

import softmax.torch as st

torch = pytest.importorskip("torch")
pytest.importorskip("expecttest")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

OURS = {
    "softmax": lambda x, dim=None, dtype=None, **_: st.softmax(x, dim, dtype),
    "log_softmax": lambda x, dim=None, dtype=None, **_: st.log_softmax(x, dim, dtype),
    "logsumexp": st.logsumexp,
    "nn.functional.cross_entropy": st.cross_entropy,
    "nn.functional.logsigmoid": st.logsigmoid,
}
# Units in the last place and an absolute error, as docs/accuracy.md has them.
BOUNDS = {
    "softmax": {torch.float32: (3, 0), torch.float64: (3, 0), torch.float16: (0.53, 0), torch.bfloat16: (0.51, 0)},
    "log": {
        torch.float32: (2, 1e-7),
        torch.float64: (3, 3e-16),
        torch.float16: (0.51, 1e-7),
        torch.bfloat16: (0.51, 1e-7),
    },
    "loss": {
        torch.float32: (0.5, 1e-7),
        torch.float64: (0.5, 2e-15),
        torch.float16: (0.5, 1e-7),
        torch.bfloat16: (0.5, 1e-7),
    },
}


def spacing(x, dtype):
    """The worth of a unit in the last place."""
    bits, least = {
        torch.float16: (10, -24),
        torch.bfloat16: (7, -133),
        torch.float32: (23, -149),
        torch.float64: (52, -1074),
    }[dtype]
    _, exponent = np.frexp(x)
    return np.ldexp(np.longdouble(1), np.maximum(exponent - 1 - bits, least))


def long_double(x):
    return x.detach().double().numpy().astype(np.longdouble)


def exact(name, x, args, kwargs, dtype):
    """The result for the numbers in `x`, in long double; of cross-entropy PyTorch's in f64."""
    if name == "nn.functional.cross_entropy":

        def wide(a):
            return a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a

        args, kwargs = [wide(a) for a in args], {k: wide(v) for k, v in kwargs.items()}
        return long_double(torch.nn.functional.cross_entropy(x.double(), *args, **kwargs))
    x = long_double(x.to(dtype))
    with np.errstate(all="ignore"):
        if name == "nn.functional.logsigmoid":
            return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))
        axis = args[0] if args else kwargs.get("dim")
        if name == "logsumexp":
            axis = tuple(axis) if isinstance(axis, (tuple, list)) else axis
            axis = tuple(range(x.ndim)) if axis == () else axis
            keep = args[1] if len(args) > 1 else kwargs.get("keepdim", False)
            if x.ndim == 0:
                return x
            top = np.max(x, axis, keepdims=True, initial=-np.inf)
            top = np.where(np.isfinite(top), top, 0)
            sums = np.log(np.exp(x - top).sum(axis, keepdims=True)) + top
            return sums if keep else np.squeeze(sums, axis)
        if x.size == 0:
            return x
        if x.ndim == 0:
            return np.ones_like(x) if name == "softmax" else np.zeros_like(x)
        e = x - x.max(axis, keepdims=True)
        sums = np.exp(e).sum(axis, keepdims=True)
        return np.exp(e) / sums if name == "softmax" else e - np.log(sums)


def infos(name):
    return [info for info in op_db if info.name == name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OURS)
def test_samples(name, dtype):
    n = 0
    kind = {"softmax": "softmax", "nn.functional.cross_entropy": "loss"}.get(name, "log")
    for info in infos(name):
        for sample in info.sample_inputs("cpu", dtype, requires_grad=False):
            x, args, kwargs = sample.input, sample.args, dict(sample.kwargs)
            weight = kwargs.get("weight")
            if weight is not None and (weight < 0).any():
                with pytest.raises(ValueError, match="weight"):
                    OURS[name](x, *args, **kwargs)
                kwargs["weight"] = weight.abs()
            want_dtype = kwargs.get("dtype") or dtype
            got = OURS[name](x, *args, **kwargs)
            want = exact(name, x, args, kwargs, want_dtype)
            theirs = info(x, *args, **kwargs)
            assert got.dtype == theirs.dtype and got.shape == theirs.shape
            ulps, least = BOUNDS[kind][got.dtype]
            got = long_double(got)
            assert (np.isnan(got) == np.isnan(want)).all()
            allowed = ulps * spacing(want, theirs.dtype)
            if kind == "loss":
                # Of the loss, of which each row's has it.
                allowed = allowed + least * np.maximum(np.abs(want), 1)
            elif theirs.dtype in (torch.float16, torch.bfloat16):
                allowed = allowed + least
            else:
                allowed = np.maximum(allowed, least)
            with np.errstate(invalid="ignore"):
                near = (np.abs(got - want) <= allowed) | (got == want) | np.isnan(want)
            assert near.all(), (sample, float(np.max((np.abs(got - want) / allowed)[~near])))
            n += got.size > 0
    assert n >= 2


@pytest.mark.parametrize("name", OURS)
def test_gradients_of_samples(name):
    n = 0
    for info in infos(name):
        for sample in info.sample_inputs("cpu", torch.float64, requires_grad=True):
            x, args, kwargs = sample.input, sample.args, dict(sample.kwargs)
            if kwargs.get("dtype") not in (None, torch.float64) or x.numel() == 0:
                continue
            kwargs = {k: v.detach().abs() if k == "weight" and v is not None else v for k, v in kwargs.items()}
            if name == "nn.functional.cross_entropy":
                args = [a.detach() if isinstance(a, torch.Tensor) else a for a in args]
                kwargs = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in kwargs.items()}
            a, b = OURS[name](x, *args, **kwargs), info(x, *args, **kwargs)
            upstream = torch.randn(b.shape, dtype=b.dtype, generator=torch.Generator().manual_seed(n))
            (da,), (db,) = torch.autograd.grad(a, x, upstream), torch.autograd.grad(b, x, upstream)
            assert torch.allclose(da, db, rtol=1e-12, atol=1e-13, equal_nan=True), sample
            n += 1
    assert n >= 2
