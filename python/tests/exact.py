"""Exact results (in long double) and errors in units of the last place."""

import numpy as np

try:
    import ml_dtypes

    BF16 = np.dtype(ml_dtypes.bfloat16)
except ImportError:
    BF16 = None


def softmax(x, axis=-1):
    x = np.asarray(x).astype(np.longdouble)
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def logsumexp(x, axis=-1, keepdims=False):
    x = np.asarray(x).astype(np.longdouble)
    top = x.max(axis=axis, keepdims=True)
    sums = np.log(np.exp(x - top).sum(axis=axis, keepdims=True)) + top
    return sums if keepdims else np.squeeze(sums, axis=axis)


def log_softmax(x, axis=-1):
    return np.asarray(x).astype(np.longdouble) - logsumexp(x, axis, keepdims=True)


def ulps(got, want):
    """The largest error in units of the last place of the type of `got`."""
    got = np.asarray(got)
    bits, least = {"float16": (10, -24), "bfloat16": (7, -133), "float32": (23, -149), "float64": (52, -1074)}[
        got.dtype.name
    ]
    want = np.asarray(want)
    exponent = np.maximum(np.frexp(want)[1] - 1 - bits, least)
    errors = np.abs(got.astype(np.longdouble) - want) / np.ldexp(np.longdouble(1), exponent)
    errors = np.where(got.astype(np.longdouble) == want, 0, errors)
    assert not np.isnan(errors).any()
    return float(errors.max(initial=0))


# What docs/accuracy.md promises of softmax.
BOUND = {"float16": 0.53, "bfloat16": 0.51, "float32": 3.0, "float64": 3.0}


def is_log(got, want):
    """Whether logarithms are within what docs/accuracy.md promises."""
    got = np.atleast_1d(got)
    most, least = (3, 3e-16) if got.dtype == np.float64 else (2, 1e-7)
    far = np.abs(got.astype(np.longdouble) - want) > least
    return ulps(got[far], np.atleast_1d(want)[far]) <= most
