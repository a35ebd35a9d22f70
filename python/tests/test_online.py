"""Attention in tiles, against attention_softmax in float64."""

import numpy as np
import pytest
from exact import BF16, ulps

import softmax

SHAPE = (2, 3, 6, 37)


def cuts(rng, n):
    return sorted({0, n, *rng.integers(0, n + 1, 3).tolist()})


def options(rng):
    """Random options, all of which attention_softmax has, too."""
    batch, heads, queries, keys = SHAPE
    mask = rng.random((batch, 1, queries, keys)) < 0.8
    several = {
        "causal": True,
        "window": 9,
        "window_ahead": 3,
        "offset": int(rng.integers(0, keys)),
        "soft_cap": 4.0,
        "sinks": rng.standard_normal(heads, np.float32),
        "alibi": rng.random(heads, np.float32),
        "lengths": rng.integers(1, keys + 1, batch),
        "scale": float(rng.choice([0.5, -0.25, 3.0])),
        "mask": [mask, mask[0, :, 0], rng.standard_normal((heads, queries, keys), np.float32)][rng.integers(3)],
        "mask_slopes": None,
    }
    chosen = {name: value for name, value in several.items() if rng.random() < 0.3}
    if "mask" in chosen and chosen["mask"].dtype == np.float32:
        chosen["mask_slopes"] = rng.random(heads, np.float32)
    return chosen | {"masked": str(rng.choice(["nan", "zero"]))}


def in_tiles(online, scores, rng, **more):
    """The weights of random tiles, multiplied by all later factors, and the last type."""
    weights = np.zeros(SHAPE)
    for queries in zip((q := cuts(rng, SHAPE[2])), q[1:], strict=False):
        for first, end in zip((k := cuts(rng, SHAPE[3])), k[1:], strict=False):
            part = scores[:, :, slice(*queries), first:end]
            w, factors = online.tile(part, queries[0], first, **more)
            assert w.shape == part.shape and factors.shape == part.shape[:-1]
            weights[:, :, slice(*queries), :first] *= np.asarray(factors)[..., None]
            weights[:, :, slice(*queries), first:end] = np.asarray(w, np.float64)
    return weights


def check(weights, ends, scores, chosen, most):
    probs, lse = softmax.attention_softmax(scores.astype(np.float64), lse=True, **chosen)
    reciprocals, logs = map(np.asarray, ends)
    got = (weights.astype(np.float32) * reciprocals[..., None]).astype(np.float32)
    assert np.isnan(got).any(-1).tolist() == np.isnan(probs).any(-1).tolist()
    # Where nothing is seen.
    got, probs = np.nan_to_num(got), np.nan_to_num(probs)
    assert (got[probs == 0] == 0).all()
    # Weights below 2^-126 of the largest are 0.
    tiny = probs < 2.0**-120
    assert (got[tiny] < 2.0**-119).all() and ulps(got[~tiny], probs[~tiny]) <= most
    far = np.abs(np.where(np.isinf(lse), 0, logs - lse)) > 2e-7
    assert ulps(logs[far], lse[far]) <= 2 and (np.isinf(logs) == np.isinf(lse)).all()


def test_tiles_are_attention():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scores, chosen = rng.standard_normal(SHAPE).astype(np.float32) * 5, options(rng)
        online = softmax.OnlineSoftmax(SHAPE, **chosen)
        weights = in_tiles(online, scores, rng)
        check(weights, online.finish(), scores, chosen, 4)
        # In place, and on another kernel, the same bits.
        for kernel in softmax.kernels():
            again = softmax.OnlineSoftmax(SHAPE, kernel=kernel, **chosen)
            y = scores.copy()
            w, _ = again.tile(y, out=y)
            assert w is y
            other, _ = softmax.OnlineSoftmax(SHAPE, **chosen).tile(scores)
            assert other.tobytes() == y.tobytes()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types(dtype):
    rng = np.random.default_rng(1)
    if dtype == "bfloat16" and BF16 is None:
        pytest.skip("ml_dtypes is missing")
    of = np.dtype(dtype) if dtype == "float16" else BF16
    scores = rng.standard_normal(SHAPE).astype(np.float32)
    online, plain = softmax.OnlineSoftmax(SHAPE), softmax.OnlineSoftmax(SHAPE)
    (weights, _), (want, _) = online.tile(scores, dtype=dtype), plain.tile(scores)
    assert weights.dtype == of and (weights == want.astype(of)).all()
    assert all((a == b).all() for a, b in zip(online.finish(), plain.finish(), strict=True))
    out = np.empty(SHAPE, of)
    assert softmax.OnlineSoftmax(SHAPE).tile(scores, dtype=dtype, out=out)[0] is out
    assert out.tobytes() == weights.tobytes()


def test_states_merge_exactly():
    rng = np.random.default_rng(2)
    scores = rng.standard_normal(SHAPE).astype(np.float32)
    scores[0, 0, :, 30] = 80
    scores[0, 1, :, :20] = -np.inf
    for sent in False, True:
        first, second = softmax.OnlineSoftmax(SHAPE), softmax.OnlineSoftmax(SHAPE)
        a, _ = first.tile(scores[..., :20])
        b, _ = second.tile(scores[..., 20:], first_key=20)
        other = second.to_array() if sent else second
        factors, others = first.merge(other)
        assert (np.frexp(factors[factors > 0])[0] == 0.5).all() and (others == 1).any()
        assert (factors[0, 1] == 0).all() and (others[0, 0] == 1).all()
        weights = np.concatenate([a * factors[..., None], b * others[..., None]], -1)
        check(weights.astype(np.float64), first.finish(), scores, {}, 4)
    assert second.to_array().shape == (2, 3, 6, 5)
    with pytest.raises(ValueError, match="itself"):
        first.merge(first)
    with pytest.raises(ValueError, match="the other must be of"):
        first.merge(softmax.OnlineSoftmax((6, 37)))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 6, 5\) and type float64"):
        first.merge(np.zeros((2, 3, 6, 4)))


def test_merged_outputs():
    rng = np.random.default_rng(3)
    scores = rng.standard_normal((5, 30)).astype(np.float32) * 3
    values = rng.standard_normal((30, 8)).astype(np.float32)
    outputs, lses = [], []
    for part in slice(0, 11), slice(11, 12), slice(12, 30):
        probs, lse = softmax.attention_softmax(scores[:, part], lse=True)
        outputs.append(probs @ values[part])
        lses.append(lse)
    output, lse = softmax.merge_outputs(np.stack(outputs), np.stack(lses))
    probs, want = softmax.attention_softmax(scores.astype(np.float64), lse=True)
    assert np.allclose(output, probs @ values, rtol=1e-5, atol=1e-6) and np.allclose(lse, want)
    nothing = np.full((2, 5), -np.inf, np.float32)
    zeros = softmax.merge_outputs(np.zeros((2, 5, 8), np.float32), nothing, masked="zero")
    assert (zeros[0] == 0).all() and (zeros[1] == -np.inf).all()
    assert np.isnan(softmax.merge_outputs(np.zeros((2, 5, 8), np.float32), nothing)[0]).all()
    with pytest.raises(TypeError, match="float32"):
        softmax.merge_outputs(np.zeros((2, 5, 8)), nothing)
    with pytest.raises(ValueError, match="parts first"):
        softmax.merge_outputs(np.zeros((2, 4, 8), np.float32), nothing)


def test_any_layout():
    rng = np.random.default_rng(4)
    scores = rng.standard_normal(SHAPE).astype(np.float32)
    want, factors = softmax.OnlineSoftmax(SHAPE).tile(scores)
    turned = scores.transpose(3, 1, 0, 2).copy().transpose(2, 1, 3, 0)
    assert not turned.flags.c_contiguous
    for out in None, turned.copy(order="K"), np.empty(SHAPE, np.float32)[:, :, :, ::1], turned:
        got, again = softmax.OnlineSoftmax(SHAPE).tile(turned, out=out)
        assert (got == want).all() and (again == factors).all() and (out is None or got is out)
    # Rows with padding, in place.
    wide = np.zeros((*SHAPE[:3], 50), np.float32)
    wide[..., :37] = scores
    softmax.OnlineSoftmax(SHAPE).tile(wide[..., :37], out=wide[..., :37])
    assert (wide[..., :37] == want).all() and (wide[..., 37:] == 0).all()


def test_bad_arguments():
    scores = np.zeros((6, 37), np.float32)
    online = softmax.OnlineSoftmax((6, 37))
    before = online.to_array()

    def refused(kind, match, call, *arguments, **named):
        with pytest.raises(kind, match=match):
            call(*arguments, **named)

    refused(ValueError, "no tile of", online.tile, scores, 1)
    refused(ValueError, "no tile of", online.tile, scores[:, :5], 0, 33)
    refused(ValueError, "no tile of", online.tile, scores[None])
    refused(ValueError, "first_key", online.tile, scores, first_key=-1)
    refused(TypeError, "first_query", online.tile, scores, 0.5)
    refused(TypeError, "scores must be float32, got float64", online.tile, scores.astype(float))
    refused(TypeError, "weights must be", online.tile, scores, dtype="float64")
    refused(TypeError, "out must be float32", online.tile, scores, out=np.zeros((6, 37)))
    refused(ValueError, "out must have shape", online.tile, scores, out=np.zeros((6, 36), np.float32))
    refused(ValueError, "out overlaps", online.tile, scores[:, 1:], out=scores[:, :-1])
    assert online.to_array().tobytes() == before.tobytes()
    make = softmax.OnlineSoftmax
    refused(ValueError, "axes of queries and keys", make, (5,))
    refused(TypeError, "iterable", make, 5)
    refused(ValueError, "a size", make, (5, -1))
    refused(ValueError, "too many", make, (1 << 40, 1 << 40))
    refused(ValueError, "soft cap", make, (6, 37), soft_cap=-1.0)
    refused(ValueError, "temperature", make, (6, 37), temperature=0.0)
    refused(ValueError, "not both", make, (6, 37), temperature=1.0, scale=1.0)
    refused(ValueError, "broadcast", make, (6, 37), mask=np.ones((5, 37), bool))
    refused(ValueError, "sinks", make, (2, 6, 37), sinks=np.zeros(3, np.float32))
    refused(ValueError, "kernel", make, (6, 37), kernel="none")


def test_tensors(torch):
    rng = np.random.default_rng(5)
    scores = rng.standard_normal(SHAPE).astype(np.float32)
    want, factors = softmax.OnlineSoftmax(SHAPE).tile(scores)
    online = softmax.OnlineSoftmax(SHAPE)
    x = torch.tensor(scores)
    got, again = online.tile(x, out=x)
    assert got is x and (x.numpy() == want).all() and (again.numpy() == factors).all()
    reciprocals, logs = online.finish()
    assert isinstance(reciprocals, torch.Tensor) and logs.shape == SHAPE[:3]
    halves, _ = softmax.OnlineSoftmax(SHAPE).tile(torch.tensor(scores), dtype=torch.bfloat16)
    assert halves.dtype == torch.bfloat16 and (halves == x.to(torch.bfloat16)).all()
    for size in 64, 80:
        q, k, v = torch.randn(3, 2, 4, 90, size)
        online = softmax.OnlineSoftmax((2, 4, 90, 90), scale=size**-0.5, causal=True)
        output = torch.zeros(2, 4, 90, size)
        for query in range(0, 90, 32):
            end = query + 32
            for key in range(0, min(end, 90), 32):
                tile = q[..., query:end, :] @ k[..., key : key + 32, :].mT
                weights, factors = online.tile(tile, query, key, out=tile)
                part = output[..., query:end, :]
                part.mul_(factors[..., None]).add_(weights @ v[..., key : key + 32, :])
        output *= online.finish()[0][..., None]
        expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        assert torch.allclose(output, expected, atol=1e-5)


def test_memory_of_masks_is_apart():
    mask = np.ones((6, 37), bool)
    online = softmax.OnlineSoftmax((6, 37), mask=mask)
    mask[:] = False
    weights, _ = online.tile(np.zeros((6, 37), np.float32))
    assert (weights > 0).all()


def test_the_docstring():
    import doctest

    runner = doctest.DocTestRunner()
    for name in "OnlineSoftmax", "merge_outputs":
        found = doctest.DocTestParser().get_doctest(getattr(softmax, name).__doc__, {}, name, name, 0)
        assert found.examples
        assert runner.run(found).failed == 0
