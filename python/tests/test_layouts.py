"""Arrays of any layout: the same bits as of a copy in C order, read where they lie."""

import tracemalloc

import exact
import numpy as np
import pytest

import softmax

RNG = np.random.default_rng(7)
BASE = (RNG.standard_normal((12, 10, 14)) * 3).astype(np.float32)

LAYOUTS = {
    "C order": BASE,
    "Fortran order": np.asfortranarray(BASE),
    "transposed": BASE.transpose(2, 0, 1),
    "every other": BASE[::2, ::3, ::2],
    "reversed": BASE[::-1, :, ::-1],
    "padded rows": BASE[:, :, :9],
    "broadcast": np.broadcast_to(BASE[:1, :, :], (4, 10, 14)),
    "one column": BASE[:, :, 3:4],
    "empty": BASE[:0],
    "empty rows": BASE[:, :, :0],
}

MAPS = {
    "softmax": softmax.softmax,
    "log_softmax": softmax.log_softmax,
    "hardmax": softmax.hardmax,
    "sigmoid": lambda x, axis=-1, **options: softmax.sigmoid(x, **options),
    "log_sigmoid": lambda x, axis=-1, **options: softmax.log_sigmoid(x, **options),
}


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 2), None])
def test_a_map_has_the_bits_of_a_copy(layout, name, axis):
    x, f = LAYOUTS[layout], MAPS[name]
    before = x.copy()
    want = f(np.ascontiguousarray(x), axis=axis)
    got = f(x, axis=axis)
    assert same(np.ascontiguousarray(got), np.ascontiguousarray(want))
    assert same(x, before)
    # Into memory between whose elements others lie, which stay as they are.
    wide = np.full(tuple(2 * n for n in x.shape), 77, x.dtype)
    out = wide[tuple(slice(None, None, 2) for _ in x.shape)]
    assert f(x, axis=axis, out=out) is out
    assert same(np.ascontiguousarray(out), np.ascontiguousarray(want))
    rest = np.ones(wide.shape, bool)
    rest[tuple(slice(None, None, 2) for _ in x.shape)] = False
    assert (wide[rest] == 77).all()
    # In place.
    y = np.array(x, order="K", copy=True)
    assert f(y, axis=axis, out=y) is y
    assert same(np.ascontiguousarray(y), np.ascontiguousarray(want))


@pytest.mark.parametrize("layout", [k for k in LAYOUTS if k != "empty rows"])
@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_a_reduction_has_the_bits_of_a_copy(layout, axis):
    x = LAYOUTS[layout]
    c = np.ascontiguousarray(x)
    assert same(softmax.logsumexp(x, axis), softmax.logsumexp(c, axis))
    if x.shape[axis]:
        assert same(softmax.argmax(x, axis), np.asarray(np.argmax(c, axis)))
        assert same(softmax.argmax(x, axis, keepdims=True), np.argmax(c, axis, keepdims=True))
        k = min(3, x.shape[axis])
        for values in ["probs", "log_probs", "logits"]:
            a, b = softmax.top_k(x, k, axis, values=values), softmax.top_k(c, k, axis, values=values)
            assert same(np.ascontiguousarray(a[0]), np.ascontiguousarray(b[0])) and (a[1] == b[1]).all()
            assert a[0].shape[axis] == k
    labels = RNG.integers(0, max(x.shape[axis], 1), np.delete(x.shape, axis))
    if x.shape[axis]:
        a = softmax.cross_entropy_with_grad(x, labels, reduction="none", axis=axis)
        b = softmax.cross_entropy_with_grad(c, labels, reduction="none", axis=axis)
        assert same(a[0], b[0]) and same(np.ascontiguousarray(a[1]), b[1])


def test_logits_of_top_k_are_those_at_its_indices():
    values, indices = softmax.top_k(BASE, 4, 1, values="logits")
    assert (np.take_along_axis(BASE, indices, 1) == values).all()
    probs, _ = softmax.top_k(BASE, 4, 1)
    assert (np.take_along_axis(softmax.softmax(BASE, 1), indices, 1) == probs).all()


def test_new_arrays_have_the_order_of_the_input():
    x = np.asfortranarray(BASE)
    assert softmax.softmax(x).strides == x.strides
    x = BASE.transpose(1, 2, 0)
    assert softmax.softmax(x, 0).strides == x.strides


def memory_of(f):
    """Bytes of NumPy arrays that a call has at the same time, at most."""
    f()
    tracemalloc.start()
    try:
        f()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def resident():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize("axis", [0, 1])
def test_nothing_is_copied(axis):
    # NumPy tells tracemalloc of its memory, Rust tells nobody: that is seen in the peak of the
    # process, which `clear_refs` resets.
    wide = np.zeros((4096, 8192), np.float32)
    out = np.zeros((4096, 2048), np.float32)
    for x in [wide[:, :2048], wide[:, ::4], wide[::-1, 8191:6143:-1], wide.reshape(8192, 4096).T[:, :2048]]:

        def call(x=x):
            softmax.softmax(x, axis, out=out)

        assert memory_of(call) < 1 << 16
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        before = resident()
        call()
        # A copy of the input would be 32 MiB; the library's own scratch is half a MiB a thread, and
        # up to four times 2 MiB along axis 0.
        assert resident() - before < 12 << 20
    assert memory_of(lambda: softmax.logsumexp(wide[:, :2048])) < 1 << 16


def test_the_result_of_an_array_is_its_only_memory():
    x = np.zeros((1024, 1024), np.float32)
    assert memory_of(lambda: softmax.softmax(x)) < x.nbytes + (1 << 16)


@pytest.mark.parametrize("make", [lambda x: x[:, ::2], lambda x: x[::-1], lambda x: x.T])
def test_masks_and_logits_may_lie_anywhere(make):
    scores = RNG.standard_normal((2, 16, 16)).astype(np.float32)
    mask = RNG.random((2, 16, 32)) > 0.5
    x = np.ascontiguousarray(scores[0])
    want = softmax.attention_softmax(x, mask=np.ascontiguousarray(mask[0, :, ::2]), masked="zero")
    assert same(softmax.attention_softmax(x, mask=mask[0, :, ::2], masked="zero"), want)
    x = make(np.concatenate([scores[0], scores[1]], 1))
    y = softmax.attention_softmax(x, causal=True)
    assert same(np.ascontiguousarray(y), softmax.attention_softmax(np.ascontiguousarray(x), causal=True))


def test_rows_that_are_alike_share_no_output():
    x = np.broadcast_to(np.float32([1, 2, 3]), (5, 3))
    y = softmax.softmax(x)
    assert y.strides[0] and exact.ulps(y, exact.softmax(x)) <= 3
