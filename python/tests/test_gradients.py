"""Gradients of entropies and divergences, beside long double and PyTorch's autograd in f64."""

import exact
import numpy as np
import pytest

import softmax

RNG = np.random.default_rng(11)
X = RNG.standard_normal((4, 5, 6)) * 3
Y = X * 0.75 + RNG.standard_normal((4, 5, 6))
AXES = [-1, 0, 1, (0, 1), (0, 2), None]
DTYPES = [np.float32, np.float64, np.float16, exact.BF16]


def of_shape(shape, axis, keepdims=False):
    """A gradient for each row of arrays of a shape."""
    return RNG.uniform(-2, 2, np.zeros(shape).sum(axis, keepdims=keepdims).shape)


def entropy_gradient(x, upstream, axis, scale=1.0):
    """The gradient, and what its error is to be measured by."""
    x, upstream = np.longdouble(x) * scale, np.longdouble(upstream) * scale
    p, log = exact.softmax(x, axis), exact.log_softmax(x, axis)
    h = -(p * log).sum(axis, keepdims=True)
    p = np.expand_dims(upstream, axis if axis is not None else (0, 1, 2)) * p
    return -p * (log + h), abs(p) * (abs(log) + h)


def kl_gradients(x, y, upstream, axis, scale=1.0):
    """The gradients, and what their errors are to be measured by."""
    x, y, upstream = (np.longdouble(a) * scale for a in [x, y, upstream])
    p, q = (exact.softmax(a, axis) for a in [x, y])
    d = exact.log_softmax(x, axis) - exact.log_softmax(y, axis)
    kl = (p * d).sum(axis, keepdims=True)
    upstream = np.expand_dims(upstream, axis if axis is not None else (0, 1, 2))
    first, second = upstream * p * (d - kl), upstream * (q - p)
    return (first, abs(upstream) * p * (abs(d) + kl)), (second, abs(second)), abs(upstream * p)


def close(got, want, size, ulps, least=0.0):
    """Whether errors are at most so many units in the last place of `size`."""
    digits, smallest = {"float16": (10, -24), "bfloat16": (7, -133), "float32": (23, -149), "float64": (52, -1074)}[
        got.dtype.name
    ]
    error = np.abs(got.astype(np.longdouble) - want)
    assert got.shape == want.shape and not np.isnan(error).any()
    return (error <= size * ulps * np.longdouble(2) ** -digits + np.longdouble(2) ** smallest + least).all()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_entropy_backward(axis, dtype):
    x, upstream = X.astype(dtype), of_shape(X.shape, axis).astype(dtype)
    ulps = {"float64": 14, "float32": 6}.get(x.dtype.name, 0.51)
    for options, scale in [({}, 1.0), ({"temperature": 2.0}, 0.5), ({"scale": -0.25}, -0.25)]:
        y = softmax.entropy_backward(x, upstream, axis, **options)
        assert y.dtype == dtype and close(y, *entropy_gradient(x, upstream, axis, scale), ulps)
        out = np.full(x.shape, 7, dtype)
        assert softmax.entropy_backward(x, upstream, axis, out=out, **options) is out
        assert out.tobytes() == y.tobytes()
        kept = upstream.reshape(softmax.entropy(x, axis, keepdims=True).shape)
        assert softmax.entropy_backward(x, kept, axis=axis, **options).tobytes() == y.tobytes()


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kl_divergence_backward(axis, dtype):
    x, y, upstream = X.astype(dtype), Y.astype(dtype), of_shape(X.shape, axis).astype(dtype)
    wide = x.dtype == np.float64
    for options, scale in [({}, 1.0), ({"temperature": 2.0}, 0.5), ({"scale": -0.25}, -0.25)]:
        pair = softmax.kl_divergence_backward(x, y, upstream, axis, **options)
        *want, size = kl_gradients(x, y, upstream, axis, scale)
        for got, (exactly, measure), ulps in zip(pair, want, [12, 8] if wide else [0.51, 0.51]):
            least = size * (1e-15 if wide else 1e-12)
            assert got.dtype == dtype and close(got, exactly, measure, ulps, least)
        out = np.full(x.shape, 7, dtype), np.full(x.shape, 7, dtype)
        again = softmax.kl_divergence_backward(x, y, upstream, axis, out=out, **options)
        assert all(a is b and a.tobytes() == c.tobytes() for a, b, c in zip(again, out, pair))
        kept = upstream.reshape(softmax.entropy(x, axis, keepdims=True).shape)
        again = softmax.kl_divergence_backward(x, y, kept, axis=axis, **options)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(again, pair))


@pytest.mark.parametrize("dim", [-1, 0])
def test_they_are_the_gradients_that_autograd_has(torch, dim):
    x, y = (torch.tensor(a, requires_grad=True) for a in [X, Y])
    p, q = ((a * 0.5).log_softmax(dim) for a in [x, y])
    entropies = torch.special.entr(p.exp()).sum(dim)
    divergences = torch.nn.functional.kl_div(q, p, reduction="none", log_target=True).sum(dim)
    upstream = torch.tensor(of_shape(X.shape, dim))
    (want,) = torch.autograd.grad(entropies, x, upstream, retain_graph=True)
    got = softmax.entropy_backward(x.detach(), upstream, dim, scale=0.5)
    assert torch.allclose(got, want, rtol=1e-11, atol=1e-14)
    wants = torch.autograd.grad(divergences, [x, y], upstream)
    gots = softmax.kl_divergence_backward(x.detach(), y.detach(), upstream, dim, scale=0.5)
    for got, want in zip(gots, wants):
        assert torch.allclose(got, want, rtol=1e-11, atol=1e-14)


def test_tensors_give_tensors(torch):
    for dtype in [torch.float32, torch.float64, torch.float16, torch.bfloat16]:
        x, y = (torch.tensor(a[0]).to(dtype) for a in [X, Y])
        upstream = torch.tensor(of_shape((5, 6), -1)).to(dtype)
        as_arrays = [
            a.view(torch.int16).numpy().view(exact.BF16) if dtype == torch.bfloat16 else a.numpy()
            for a in [x, y, upstream]
        ]
        bits = torch.int16 if dtype == torch.bfloat16 else dtype
        got = softmax.entropy_backward(x, upstream, threads=1)
        want = softmax.entropy_backward(as_arrays[0], as_arrays[2])
        assert got.dtype == dtype and got.view(bits).numpy().tobytes() == want.tobytes()
        out = torch.empty_like(x), torch.empty_like(x)
        for options in [{}, {"out": out}]:
            pair = softmax.kl_divergence_backward(x, y, upstream, **options)
            wants = softmax.kl_divergence_backward(*as_arrays)
            for got, want in zip(pair, wants):
                assert got.dtype == dtype and got.view(bits).numpy().tobytes() == want.tobytes()
        assert pair[0] is out[0] and pair[1] is out[1]
    with pytest.raises(TypeError, match="requires grad"):
        softmax.entropy_backward(x.requires_grad_(), upstream)
    # One row: its entropy is a number.
    x = torch.tensor([1.0, 2.0, 3.0])
    assert softmax.entropy_backward(x, torch.tensor(1.0)).shape == (3,)


def calls(x, y, upstream, axis=-1, **options):
    """All gradients of a call, one after another."""
    first = softmax.entropy_backward(x, upstream, axis, **options)
    return [first, *softmax.kl_divergence_backward(x, y, upstream, axis, **options)]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("make", [np.asfortranarray, lambda x: x[::-1, :, ::-1], lambda x: x[:, ::2], lambda x: x.T])
def test_any_layout_has_the_bits_of_a_copy(make, axis):
    x, y = make(X), make(Y)
    copies = [np.ascontiguousarray(a) for a in [x, y]]
    upstream = of_shape(x.shape, axis)
    want = calls(*copies, upstream, axis)
    for got, copied in zip(calls(x, y, upstream, axis), want):
        assert np.ascontiguousarray(got).tobytes() == copied.tobytes()
    # Into memory between whose elements others lie.
    wide = np.full((3, *(2 * n for n in x.shape)), 77.0)
    outs = [w[tuple(slice(None, None, 2) for _ in x.shape)] for w in wide]
    softmax.entropy_backward(x, upstream, axis, out=outs[0])
    softmax.kl_divergence_backward(x, y, upstream, axis, out=(outs[1], outs[2]))
    for got, copied in zip(outs, want):
        assert got.tobytes() == copied.tobytes()
    assert (wide == 77).sum() == 3 * x.size * 7
    # The upstream gradient may lie anywhere, too.
    if upstream.ndim:
        apart = np.repeat(upstream, 2, -1)[..., ::2]
        for got, copied in zip(calls(x, y, apart, axis), want):
            assert np.ascontiguousarray(got).tobytes() == copied.tobytes()


def test_kernels_and_threads_have_the_same_bits():
    x, y = (RNG.standard_normal((200, 300)).astype(np.float32) for _ in range(2))
    upstream = of_shape(x.shape, -1).astype(np.float32)
    seen = RNG.random(x.shape) < 0.9
    for mask in [None, seen]:
        want = calls(x, y, upstream, mask=mask)
        for kernel in softmax.kernels():
            for threads in [1, 2]:
                got = calls(x, y, upstream, mask=mask, kernel=kernel, threads=threads)
                assert all(a.tobytes() == b.tobytes() for a, b in zip(got, want)), (kernel, threads)


def test_masks():
    seen = np.array([True, False, True, True, False, True])
    upstream = of_shape(X.shape, -1)
    bits = np.uint32([0b101101])
    each = RNG.random(X.shape) < 0.7
    each[..., 0] = True
    for masks in [
        [{"mask": seen}, {"mask": np.where(seen, 0.0, -np.inf)}, {"bitmask": bits}],
        [{"mask": each}],
        [{"bitmask": np.uint32([0b1111]), "hidden_from": 4}, {"mask": np.arange(6) < 4}],
    ]:
        hidden = ~np.broadcast_to(seen if "bitmask" in masks[-1] else masks[-1]["mask"], X.shape)
        want = calls(*(np.where(hidden, -np.inf, a) for a in [X, Y]), upstream)
        for options in masks:
            for got, wanted in zip(calls(X, Y, upstream, **options), want):
                assert (got == wanted).all() and (got[hidden] == 0).all()
    # Along another axis.
    moved = [np.moveaxis(a, -1, 0) for a in [X, Y]]
    got = calls(*moved, upstream, 0, mask=np.moveaxis(each, -1, 0))
    for a, b in zip(got, calls(X, Y, upstream, mask=each)):
        assert (np.moveaxis(a, 0, -1) == b).all()


def test_rows_without_results():
    nothing = np.full((2, 3), -np.inf, np.float32)
    upstream = np.ones(2, np.float32)
    assert all(np.isnan(y).all() for y in calls(nothing, nothing, upstream))
    assert all((y == 0).all() for y in calls(nothing, nothing, upstream, masked="zero"))
    x = np.float32([[0, np.nan, 1], [0, 1, 2]])
    for y in calls(x, x[::-1].copy()[::-1], upstream):
        assert np.isnan(y[0]).all() and not np.isnan(y[1]).any()
    # Where q is 0 and p is not, the divergence is infinite.
    of_p, of_q = softmax.kl_divergence_backward([0.0, 0.0], [0.0, -np.inf], 1.0)
    assert np.isnan(of_p).all() and (of_q == [0.5, -0.5]).all()
    for shape in [(3, 0), (0, 4), (0, 0)]:
        x = np.zeros(shape, np.float32)
        for axis in [0, 1]:
            assert [y.shape for y in calls(x, x, of_shape(shape, axis).astype(np.float32), axis)] == [shape] * 3
    # A row of one element, with and without an axis, has nothing to change.
    for x in [3.0, [3.0]]:
        assert [np.shape(y) for y in calls(x, x, 1.0)] == [np.shape(x)] * 3
        assert all(np.all(y == 0) for y in calls(x, x, 1.0))


@pytest.mark.parametrize("axis", [-1, 0, (0, 2)])
@pytest.mark.parametrize("keyword", ["scale", "temperature"])
def test_entropy_backward_with_a_factor_for_each_row(axis, keyword):
    axes = axis if isinstance(axis, tuple) else (axis % 3,)
    order = [a for a in range(3) if a not in axes] + list(axes)
    cols = int(np.prod([X.shape[a] for a in axes]))
    moved, upstream = X.transpose(order).reshape(-1, cols), of_shape(X.shape, axis)
    factors = RNG.uniform(0.1, 3, len(moved))
    mask = RNG.random(X.shape) < 0.9
    for seen in [None, mask]:
        y = softmax.entropy_backward(X, upstream, axis, mask=seen, **{keyword: factors})
        rows = [None] * len(moved) if seen is None else mask.transpose(order).reshape(-1, cols)
        for got, row, g, m, factor in zip(y.transpose(order).reshape(-1, cols), moved, upstream.flat, rows, factors):
            assert np.array_equal(got, softmax.entropy_backward(row, g, mask=m, **{keyword: factor}))
    with pytest.raises(ValueError, match=f"{keyword} must be one, or {len(moved)} for rows of shape"):
        softmax.entropy_backward(X, upstream, axis, **{keyword: factors[1:]})
    out = np.full(X.shape, 7.0)
    adds = np.where(mask, 0.0, -np.inf)
    adds[-1, -1, -1] = 0.5
    with pytest.raises(ValueError, match=f"the element of the mask {X.size - 1} must be 0 or -inf"):
        softmax.entropy_backward(X, upstream, axis, mask=adds, out=out, **{keyword: factors})
    factors[-1] = np.nan
    with pytest.raises(ValueError, match=f"the {keyword} {len(moved) - 1} must be"):
        softmax.entropy_backward(X, upstream, axis, out=out, **{keyword: factors})
    assert (out == 7).all()


def refused(error, words, f, *args, **options):
    with pytest.raises(error) as caught:
        f(*args, **options)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_what_is_refused():
    entropy, kl = softmax.entropy_backward, softmax.kl_divergence_backward
    x, y = (a[0].astype(np.float32) for a in [X, Y])
    upstream = np.ones(5, np.float32)
    kept = [a.copy() for a in [x, y, upstream]]
    for f, of, name in [(entropy, (x,), "x"), (kl, (x, y), "p_logits")]:
        refused(ValueError, ["upstream", f"row of {name}", "(5,)", "(4,)"], f, *of, upstream[1:])
        refused(ValueError, ["upstream", "(6,)", "(5,)"], f, *of, upstream, 0)
        refused(ValueError, ["upstream", "(5,)", "()"], f, *of, np.float32(1))
        refused(ValueError, ["upstream", "(5,)", "(1, 5)"], f, *of, upstream[None])
        refused(TypeError, ["upstream must be float32", name, "float64"], f, *of, upstream.astype(float))
        refused(TypeError, ["upstream", "complex64"], f, *of, upstream.astype(np.complex64))
        refused(np.exceptions.AxisError, ["axis 2"], f, *of, upstream, 2)
        refused(ValueError, ["temperature"], f, *of, upstream, temperature=0.0)
        refused(ValueError, ["not both"], f, *of, upstream, temperature=1.0, scale=1.0)
        refused(ValueError, ["only hide"], f, *of, upstream, mask=np.full(6, 0.5))
        refused(ValueError, ["mask", "(5, 6)", "(4,)"], f, *of, upstream, mask=np.ones(4, bool))
        refused(ValueError, ["'nan' or 'zero'"], f, *of, upstream, masked="one")
        refused(ValueError, ["no kernel"], f, *of, upstream, kernel="sse9")
    refused(ValueError, ["q_logits", "(5, 6)", "(4, 6)"], kl, x, y[1:], upstream)
    refused(TypeError, ["q_logits must be float32", "float64"], kl, x, y.astype(float), upstream)
    to = np.full_like(x, 7)
    refused(ValueError, ["(5, 6)", "(6, 5)"], entropy, x, upstream, out=to.T)
    refused(TypeError, ["float32", "float64"], entropy, x, upstream, out=to.astype(float))
    refused(ValueError, ["apart from x"], entropy, x, upstream, out=x)
    refused(ValueError, ["out overlaps"], entropy, x, upstream, out=x[::-1])
    refused(ValueError, ["out overlaps upstream"], entropy, x, to[:, 0], out=to)
    refused(ValueError, ["out overlaps mask"], entropy, x, upstream, out=to, mask=to[:, ::-1])
    refused(ValueError, ["apart from p_logits"], kl, x, y, upstream, out=(x, to))
    refused(ValueError, ["apart from q_logits"], kl, x, y, upstream, out=(to, y))
    refused(ValueError, ["out overlaps q_logits"], kl, x, y, upstream, out=(y, to))
    refused(ValueError, ["out overlaps p_logits"], kl, x, y, upstream, out=(to, x))
    refused(ValueError, ["out overlaps the gradient of q_logits"], kl, x, y, upstream, out=(to, to))
    refused(ValueError, ["out overlaps upstream"], kl, x, y, to[:, 1], out=(np.zeros_like(x), to))
    refused(ValueError, ["out overlaps mask"], kl, x, y, upstream, mask=to, out=(np.zeros_like(x), to))
    refused(ValueError, ["(5, 6)", "(4, 6)"], kl, x, y, upstream, out=(to, to[1:]))
    refused(TypeError, ["out must be a tuple of two arrays, got ndarray"], kl, x, y, upstream, out=to)
    refused(TypeError, ["out", "a tuple of 3"], kl, x, y, upstream, out=(to, to, to))
    refused(TypeError, ["scale"], kl, x, y, upstream, scale=[1.0] * 5)
    assert (to == 7).all() and all((a == b).all() for a, b in zip([x, y, upstream], kept))
