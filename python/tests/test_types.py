"""What comes in comes out: arrays, tensors, lists, numbers, other libraries' arrays, buffers."""

import array

import exact
import numpy as np
import pytest

import softmax

ROW = [1.0, 2.0, 4.0]
WANT = exact.softmax(ROW)


@pytest.mark.parametrize("x", [[1, 2, 4], (1, 2, 4), ROW, np.array([1, 2, 4]), np.uint8([1, 2, 4]), range(1, 5)])
def test_integers_and_lists_become_f64(x):
    y = softmax.softmax(x)
    assert type(y) is np.ndarray and y.dtype == np.float64
    assert exact.ulps(y, exact.softmax(list(x))) <= 3


def test_bools_and_numbers():
    assert exact.ulps(softmax.softmax([True, False]), exact.softmax([1, 0])) <= 3
    for one in [3, 3.0, np.float64(3), np.array(3.0)]:
        y = softmax.softmax(one)
        assert y == 1 and type(y) is np.float64
        assert softmax.softmax(one, axis=None) == 1 and softmax.logsumexp(one) == 3
    assert type(softmax.softmax(np.float32(3))) is np.float32
    assert type(softmax.logsumexp(np.float32(ROW))) is np.float32
    assert type(softmax.cross_entropy(np.float32(ROW), 1)) is np.float64
    assert softmax.argmax(ROW) == 2


def test_types_of_floats():
    for dtype in [np.float16, np.float32, np.float64, exact.BF16]:
        x = np.array(ROW).astype(dtype)
        for f in [softmax.softmax, softmax.log_softmax, softmax.hardmax, softmax.sigmoid, softmax.log_sigmoid]:
            assert f(x).dtype == dtype
        assert softmax.logsumexp(x).dtype == dtype
        wide = np.float64 if dtype == np.float64 else np.float32
        assert softmax.top_k(x, 2)[0].dtype == wide and softmax.top_k(x, 2)[1].dtype == np.int64
        assert softmax.log_probs(x, 1).dtype == wide
        loss, gradient = softmax.cross_entropy_with_grad(x, 1)
        assert loss.dtype == np.float64 and gradient.dtype == dtype


def test_bytes_of_other_machines_and_crooked_arrays_are_read():
    x = np.array(ROW).astype(">f4")
    y = softmax.softmax(x)
    assert y.dtype == np.float32 and y.dtype.isnative and exact.ulps(y, WANT) <= 3
    crooked = np.zeros(13, np.uint8)[1:].view(np.float32)
    crooked[:] = ROW
    assert not crooked.flags.aligned and exact.ulps(softmax.softmax(crooked), WANT) <= 3
    fields = np.zeros(3, [("a", "<f4"), ("b", "u1")])
    fields["a"] = ROW
    assert exact.ulps(softmax.softmax(fields["a"]), WANT) <= 3


def test_subclasses_are_plain_arrays_then():
    assert type(softmax.softmax(np.asmatrix([[1.0, 2.0]]))) is np.ndarray


def test_buffers():
    x = array.array("f", ROW)
    assert exact.ulps(softmax.softmax(x), WANT) <= 3
    assert exact.ulps(softmax.softmax(memoryview(x)), WANT) <= 3
    out = array.array("f", [0, 0, 0])
    assert softmax.softmax(x, out=out) is out
    assert exact.ulps(np.float32(out), WANT) <= 3
    with pytest.raises(ValueError, match="read-only"):
        softmax.softmax(np.float64(ROW), out=memoryview(bytes(24)).cast("d"))


class Foreign:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, x, device=(1, 0)):
        self.x, self.device = x, device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)


def test_dlpack():
    x = np.float32(ROW)
    assert exact.ulps(softmax.softmax(Foreign(x)), WANT) <= 3
    out = Foreign(np.zeros(3, np.float32))
    assert softmax.softmax(x, out=out) is out and exact.ulps(out.x, WANT) <= 3
    with pytest.raises(TypeError, match="Foreign on device 2:1"):
        softmax.softmax(Foreign(x, (2, 1)))
    with pytest.raises(TypeError, match="Foreign on device 2:1"):
        softmax.softmax(x, out=Foreign(x, (2, 1)))


def test_pandas_and_others_by_their_array():
    class Series:
        def __array__(self, dtype=None, copy=None):
            return np.float32(ROW)

    y = softmax.softmax(Series())
    assert y.dtype == np.float32 and exact.ulps(y, WANT) <= 3


def test_jax():
    jax = pytest.importorskip("jax")
    for dtype in ["float32", "float16", "bfloat16"]:
        x = jax.numpy.array(ROW, dtype=dtype)
        y = softmax.softmax(x)
        assert isinstance(y, jax.Array) and y.dtype == x.dtype
        assert exact.ulps(np.asarray(y), WANT) <= exact.BOUND[dtype]
        with pytest.raises((ValueError, TypeError), match="read-only|cannot be written"):
            softmax.softmax(x, out=x)


def test_tensors(torch):
    for dtype in [torch.float32, torch.float64, torch.float16, torch.bfloat16]:
        x = torch.tensor([ROW, ROW], dtype=dtype)
        y = softmax.softmax(x)
        assert isinstance(y, torch.Tensor) and y.dtype == dtype and y.device == x.device
        bits = y.view(torch.int16).numpy().view(exact.BF16) if dtype == torch.bfloat16 else y.numpy()
        assert exact.ulps(bits, exact.softmax([ROW, ROW])) <= exact.BOUND[bits.dtype.name]
        assert softmax.logsumexp(x).dtype == dtype
        assert softmax.cross_entropy(x, torch.tensor([0, 1])).dtype == dtype
        assert softmax.top_k(x, 2)[1].dtype == torch.int64
        assert softmax.route(x, 2)[1].dtype == torch.int64
        out = torch.empty_like(x)
        assert softmax.softmax(x, out=out) is out and torch.equal(out, y)
        assert softmax.softmax(x, out=x) is x and torch.equal(x, y)
    assert softmax.softmax(torch.tensor([1, 2, 4])).dtype == torch.float64
    assert softmax.softmax(torch.tensor([True, False])).dtype == torch.float64
    assert softmax.softmax(torch.tensor([1, 2], dtype=torch.int8)).dtype == torch.float64
    assert softmax.softmax(torch.tensor(3.0)).shape == ()


def test_tensors_of_any_layout(torch):
    x = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(1))
    for view in [x.permute(2, 0, 1), x[::2, :, ::3], x[:, :, :4], x[:1].expand(3, 5, 8), x.mT, x[:0]]:
        for dim in range(3):
            want = softmax.softmax(view.contiguous(), dim)
            assert torch.equal(softmax.softmax(view, dim), want)
            assert torch.equal(softmax.logsumexp(view, dim), softmax.logsumexp(view.contiguous(), dim))
    y = softmax.softmax(x.numpy())
    assert (softmax.softmax(x).numpy() == y).all()
    negative = torch.view_as_complex(torch.randn(4, 2)).conj().imag
    assert negative.is_neg() and torch.equal(softmax.softmax(negative, 0), softmax.softmax(negative.resolve_neg(), 0))


def test_tensors_that_are_refused(torch):
    x = torch.ones(2, 3, requires_grad=True)
    with pytest.raises(TypeError, match=r"requires grad.*softmax\.torch.*detach"):
        softmax.softmax(x)
    with pytest.raises(TypeError, match="out is a tensor that requires grad"):
        softmax.softmax(torch.ones(2, 3), out=x)
    with torch.no_grad():
        assert not softmax.softmax(x).requires_grad
    with pytest.raises(TypeError, match="on meta"):
        softmax.softmax(torch.ones(2, 3, device="meta"))
    with pytest.raises(TypeError, match="sparse"):
        softmax.softmax(torch.eye(3).to_sparse())
    with pytest.raises(TypeError, match="complex64"):
        softmax.softmax(torch.ones(2, dtype=torch.complex64))
    with pytest.raises(TypeError, match="float8"):
        softmax.softmax(torch.ones(2).to(torch.float8_e4m3fn))
    with pytest.raises(ValueError, match="share memory"):
        softmax.softmax(torch.ones(2, 3), out=torch.ones(3).expand(2, 3))
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode() as mode:
        fake = mode.from_tensor(torch.ones(3))
    with pytest.raises(TypeError, match="FakeTensor, has no memory"), pytest.warns(UserWarning):
        softmax.softmax(fake)


def test_autograd_knows_that_a_tensor_was_written(torch):
    x = torch.ones(3, requires_grad=True)
    kept = torch.ones(3)
    y = (x * kept).sum()
    softmax.softmax(kept, out=kept)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()
    with torch.inference_mode():
        z = torch.ones(3)
        softmax.softmax(z, out=z)
