"""The functions that scipy.special has, with its arguments and defaults:

    from softmax.special import softmax, log_softmax, logsumexp, expit, log_expit

They go along all axes if none is given. Complex numbers are refused.
"""

import numpy

from softmax import _softmax as _s

__all__ = ["expit", "log_expit", "log_softmax", "logsumexp", "softmax"]


def softmax(x, axis=None):
    """scipy.special.softmax."""
    return _s.softmax(x, axis)


def log_softmax(x, axis=None):
    """scipy.special.log_softmax."""
    return _s.log_softmax(x, axis)


def expit(x, out=None):
    """scipy.special.expit."""
    return _s.sigmoid(x, out=out)


def log_expit(x, out=None):
    """scipy.special.log_expit."""
    return _s.log_sigmoid(x, out=out)


def logsumexp(a, axis=None, b=None, keepdims=False, return_sign=False):
    """scipy.special.logsumexp.

    Weights `b` may be negative: their logarithm is that of the difference of two sums, each of which is
    exact to half a unit in its last place. What cancels there no function of the logarithms can restore.
    """
    a = numpy.asarray(a)
    if b is None:
        result = _s.logsumexp(a, axis, keepdims)
        sign = None
    else:
        a, b = numpy.broadcast_arrays(a, b)
        dtype = numpy.result_type(a, b)
        dtype = dtype if dtype.kind in "fc" else numpy.float64
        a, b = a.astype(dtype, copy=False), b.astype(dtype, copy=False)
        weights = b.astype(numpy.float64) if dtype == numpy.float16 else b
        if a.ndim == 0:
            a, weights = a[None], weights[None]
        plus = _s.logsumexp(a, axis, keepdims, weights=numpy.maximum(weights, 0))
        negative = weights < 0
        if not negative.any():
            result, sign = plus, None
        else:
            minus = _s.logsumexp(a, axis, keepdims, weights=numpy.where(negative, -weights, 0))
            result, sign = _difference(plus, minus)
    if sign is None and return_sign:
        sign = numpy.where(numpy.isnan(result), result, numpy.where(result == -numpy.inf, 0, 1).astype(result.dtype))
    if return_sign:
        return result, sign[()]
    return result if sign is None else numpy.where(sign < 0, numpy.nan, result).astype(result.dtype)[()]


def _difference(plus, minus):
    """ln|e^plus - e^minus|, and the sign of that difference."""
    with numpy.errstate(invalid="ignore", divide="ignore"):
        gap = numpy.subtract(minus, plus)
        high, far = numpy.maximum(plus, minus), -numpy.abs(gap)
        result = numpy.where(high == -numpy.inf, high, high + numpy.log(-numpy.expm1(far)))
        result = numpy.where(numpy.isinf(high) & (plus != minus), high, result)
        sign = numpy.where(plus == minus, 0, numpy.where(gap < 0, 1, numpy.where(gap > 0, -1, numpy.nan)))
    return result.astype(plus.dtype)[()], sign.astype(plus.dtype)
