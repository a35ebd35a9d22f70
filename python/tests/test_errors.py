"""What is refused, by which error, with which words; and that nothing is written then."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import softmax

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def refused(error, words, f, *args, **options):
    with pytest.raises(error) as caught:
        f(*args, **options)
    assert type(caught.value).__name__ != "PanicException"
    for word in words if isinstance(words, list) else [words]:
        assert word in str(caught.value), str(caught.value)


def test_axes():
    for axis in [2, -3, (0, 2), 10**30, -(10**30)]:
        refused(ValueError, "axis", softmax.softmax, X, axis)
        refused(ValueError, "axis", softmax.logsumexp, X, axis)
    refused(np.exceptions.AxisError, ["axis 2", "dimension 2"], softmax.softmax, X, 2)
    refused(ValueError, "duplicate", softmax.softmax, X, (0, -2))
    refused(TypeError, "axis must be an int", softmax.softmax, X, 1.0)
    refused(TypeError, "axis must be an int", softmax.softmax, X, "0")
    refused(TypeError, "axis must be an int", softmax.softmax, X, (0, "1"))
    refused(ValueError, "one axis", softmax.top_k, X, 2, (0, 1))


def test_types_of_elements():
    for bad in [X.astype(np.complex64), X.astype(np.longdouble), X.astype(object), np.array(["a"])]:
        refused(TypeError, ["x has elements of type", bad.dtype.name], softmax.softmax, bad)
    refused(TypeError, "not str", softmax.softmax, "abc")
    refused(TypeError, "object", softmax.softmax, object())
    refused(TypeError, "object", softmax.softmax, None)
    refused(ValueError, "inhomogeneous", softmax.softmax, [[1, 2], [3]])
    refused(TypeError, ["masked array", "filled"], softmax.softmax, np.ma.array(X, mask=X > 3))
    refused(TypeError, "masked array", softmax.softmax, X, out=np.ma.array(X))
    refused(TypeError, ["tokens must be integers", "float"], softmax.log_probs, X, [0.0, 1.0, 2.0])


def test_outputs():
    y = np.full((3, 4), 7, np.float32)
    refused(ValueError, ["(3, 4)", "(4, 3)"], softmax.softmax, X, out=y.T)
    refused(ValueError, ["(3,)", "(4,)"], softmax.logsumexp, X, out=y[0])
    refused(TypeError, ["float32", "float64"], softmax.softmax, X, out=y.astype(np.float64))
    refused(TypeError, "int64", softmax.softmax, X, out=np.zeros((3, 4), np.int64))
    refused(TypeError, "int32", softmax.softmax, X, out=np.zeros((3, 4), np.int32))
    refused(TypeError, "list", softmax.softmax, X, out=[0.0] * 12)
    refused(TypeError, "object", softmax.softmax, X, out=object())
    frozen = y.copy()
    frozen.flags.writeable = False
    refused(ValueError, "read-only", softmax.softmax, X, out=frozen)
    refused(ValueError, "read-only", softmax.softmax, X, out=np.broadcast_to(y[0], (3, 4)))
    windows = np.lib.stride_tricks.as_strided(np.zeros(6, np.float32), (3, 4), (4, 4))
    refused(ValueError, "share memory with each other", softmax.softmax, X, out=windows)
    refused(ValueError, "order of other machines", softmax.softmax, X, out=y.astype(">f4"))
    crooked = np.zeros(12 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(3, 4)
    refused(ValueError, "aligned", softmax.softmax, X, out=crooked)
    assert (y == 7).all()


def test_overlaps():
    memory = np.arange(40, dtype=np.float32)
    x = memory[:12].reshape(3, 4)
    before = memory.copy()
    refused(ValueError, "overlaps", softmax.softmax, x, out=memory[1:13].reshape(3, 4))
    refused(ValueError, "overlaps", softmax.softmax, x[::-1], out=x)
    square = memory[:9].reshape(3, 3)
    refused(ValueError, "overlaps", softmax.softmax, square, out=square.T)
    refused(ValueError, "overlaps target", softmax.cross_entropy_with_grad, x.copy(), x, out=x)
    assert (memory == before).all()
    # Columns between columns share no element.
    wide = np.arange(24, dtype=np.float32).reshape(3, 8)
    want = softmax.softmax(wide[:, ::2])
    softmax.softmax(wide[:, ::2], out=wide[:, 1::2])
    assert (wide[:, 1::2] == want).all() and (wide[:, ::2] == np.arange(24).reshape(3, 8)[:, ::2]).all()


def test_numbers_out_of_range():
    refused(ValueError, "scale", softmax.softmax, X, scale=float("nan"))
    refused(ValueError, "temperature", softmax.softmax, X, temperature=-1.0)
    refused(ValueError, "not both", softmax.softmax, X, temperature=1.0, scale=1.0)
    refused(TypeError, "scale", softmax.softmax, X, scale="1")
    refused(ValueError, "threads", softmax.softmax, X, threads=0)
    refused(ValueError, "threads", softmax.softmax, X, threads=-1)
    refused(ValueError, "threads", softmax.softmax, X, threads=10**30)
    refused(TypeError, "threads", softmax.softmax, X, threads=1.5)
    refused(TypeError, ["keepdims must be a bool", "str"], softmax.logsumexp, X, keepdims="no")
    refused(TypeError, ["causal must be a bool", "list"], softmax.attention_softmax, X, causal=[])
    assert softmax.logsumexp(X, keepdims=1).shape == (3, 1)
    refused(ValueError, ["no kernel", "sse9", "scalar"], softmax.softmax, X, kernel="sse9")
    refused(ValueError, "'nan' or 'zero'", softmax.softmax, X, masked="one")
    refused(TypeError, "'nan' or 'zero'", softmax.softmax, X, masked=0)
    refused(ValueError, "'share' or 'first'", softmax.hardmax, X, ties="last")
    refused(ValueError, ["k", "at most 4", "5"], softmax.top_k, X, 5)
    refused(ValueError, "-1", softmax.top_k, X, -1)
    refused(ValueError, ["k", "at most 4", "5"], softmax.route, X, 5)
    refused(ValueError, "group_limit", softmax.route, X, 1, groups=2)
    refused(ValueError, ["groups", "divisor", "3"], softmax.route, X, 1, groups=3, group_limit=1)
    refused(ValueError, ["biases", "4", "2"], softmax.route, X, 1, bias=[0.0, 1.0])
    refused(ValueError, "one axis", softmax.route, X, 1, bias=[[0.0] * 4])
    refused(ValueError, "'softmax' or 'sigmoid'", softmax.route, X, 1, scoring="relu")
    verify = softmax.SpeculativeSampler().verify
    rows = np.zeros((3, 4), np.float32)
    refused(ValueError, ["k + 1 rows", "(3,)", "(3, 4)"], verify, rows, [0, 1, 2])
    refused(ValueError, ["draft", "(2,)", "(2, 3)"], verify, rows, [0, 1], rows[:2, :3])
    refused(TypeError, ["float32", "float64"], verify, rows, [0, 1], rows[:2].astype(np.float64))
    refused(TypeError, "integers", verify, rows, [0.5, 1.5])
    refused(ValueError, "negative", verify, rows, [0, -1])
    refused(ValueError, ["row 1", "4 columns"], verify, rows, [0, 4])
    refused(ValueError, "offsets must go from 0 to", verify, rows, [0, 1], offsets=[0, 1])
    refused(ValueError, "offset 2", verify, rows, [0], offsets=[0, 2, 1])
    refused(ValueError, "each of 1 sequences, got 2", verify, rows, [0, 1], seeds=[1, 2])
    refused(ValueError, "temperature", softmax.SpeculativeSampler(temperature=-1.0).verify, rows, [0, 1])
    refused(ValueError, "below 2^48", verify, rows, [0, 1], step=2**48)
    refused(ValueError, "top-p", softmax.Sampler(top_p=2.0).sample, X)
    refused(ValueError, "no kernel", softmax.Sampler, kernel="x")
    refused(ValueError, "number of a row", softmax.Sampler().sample, X, first_row=2**63)
    refused(ValueError, ["3", "2"], softmax.Sampler().sample, X, history=[[1], [2]])
    refused(ValueError, "column", softmax.Sampler(bias={9: 1.0}).sample, X)


def test_losses():
    refused(ValueError, ["(3,)", "(4,)"], softmax.cross_entropy, X, [0, 1, 2, 3])
    refused(ValueError, ["(3, 4)", "(3,)"], softmax.cross_entropy, X, np.float32([0, 1, 2]))
    refused(ValueError, ["row 2", "4 columns"], softmax.cross_entropy, X, [0, 1, 4])
    refused(ValueError, ["row 2", "-1"], softmax.cross_entropy, X, [0, 1, -1])
    refused(ValueError, "weights", softmax.cross_entropy, X, [0, 1, 2], weight=[1.0, 1.0])
    refused(ValueError, "weight", softmax.cross_entropy, X, [0, 1, 2], weight=[1.0, 1.0, -1.0, 1.0])
    refused(ValueError, "smoothing", softmax.cross_entropy, X, [0, 1, 2], label_smoothing=2.0)
    refused(ValueError, "'mean' or 'sum' or 'none'", softmax.cross_entropy, X, [0, 1, 2], reduction="max")
    refused(TypeError, ["float32", "float64"], softmax.cross_entropy, X, X.astype(np.float64))
    refused(ValueError, "row_factors", softmax.cross_entropy_with_grad, X, [0, 1, 2], row_factors=[1.0])
    refused(ValueError, ["row 1", "token 7", "4 columns"], softmax.log_probs, X, [0, 7, 1])
    refused(ValueError, ["(3,)", "(2,)"], softmax.log_probs, X, [0, 1])


def test_attention():
    refused(ValueError, ["queries and keys", "(3,)"], softmax.attention_softmax, np.ones(3))
    refused(ValueError, ["(1, 1, 3, 4)", "(2, 4)"], softmax.attention_softmax, X, mask=np.ones((2, 4), bool))
    refused(TypeError, ["mask", "bool"], softmax.attention_softmax, X, mask=np.ones((3, 4), int))
    refused(ValueError, "lengths", softmax.attention_softmax, X, lengths=[1, 2])
    refused(ValueError, ["lengths", "-1"], softmax.attention_softmax, X, lengths=[-1])
    refused(ValueError, "slopes", softmax.attention_softmax, X, alibi=[1.0, 2.0])
    refused(TypeError, ["float32", "float64"], softmax.attention_softmax, X, dtype="float64")
    refused(TypeError, "int8", softmax.attention_softmax, X, dtype="int8")


def test_shards():
    shards = softmax.Shards()
    refused(ValueError, ["one axis", "(3, 4)"], shards.partials, X)
    refused(ValueError, ["(n, 4)", "(4,)"], shards.merge, np.zeros(4))
    row = shards.merge(shards.partials(X[0]))
    refused(TypeError, ["float32", "float64"], shards.softmax, row, X[0].astype(float))
    refused(ValueError, "finite", shards.partials, X[0], float("inf"))


def test_warnings_are_not_raised(recwarn):
    with np.errstate(all="raise"):
        y = softmax.softmax(np.float32([[-np.inf, 0], [-np.inf, -np.inf], [np.inf, 0], [np.nan, 1]]))
    assert y[0].tolist() == [0, 1] and np.isnan(y[1:]).all()
    assert softmax.softmax(np.float32([-np.inf] * 2), masked="zero").tolist() == [0, 0]
    assert softmax.logsumexp(np.float32([-np.inf] * 2)) == -np.inf
    assert not recwarn.list


def test_the_source_folder_says_that_it_is_not_built(tmp_path):
    package = tmp_path / "softmax"
    package.mkdir()
    for name in ["__init__.py", "__main__.py"]:
        (package / name).write_bytes((Path(softmax.__file__).parent / name).read_bytes())
    done = subprocess.run([sys.executable, "-c", "import softmax"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "pip install ./python" in done.stderr.splitlines()[-1]
