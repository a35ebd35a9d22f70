"""Values of the functions that are not maps, beside long double or NumPy."""

import exact
import numpy as np
import pytest

import softmax

RNG = np.random.default_rng(3)
X = RNG.standard_normal((4, 5, 6)) * 4
LABELS = RNG.integers(0, 6, (4, 5))


@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 1), (0, 2), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp(axis, keepdims):
    for dtype in [np.float32, np.float64]:
        x = X.astype(dtype)
        y = softmax.logsumexp(x, axis, keepdims)
        want = exact.logsumexp(x, axis, keepdims)
        assert y.shape == want.shape and exact.is_log(y, want)
        out = np.empty(want.shape, dtype)
        assert softmax.logsumexp(x, axis, keepdims, out=out) is out and (out == y).all()


@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 1), (0, 2), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_entropy(axis, keepdims):
    for dtype in [np.float32, np.float64]:
        x = X.astype(dtype)
        h = softmax.entropy(x, axis, keepdims, temperature=2.0)
        p = exact.softmax(x.astype(np.longdouble) / 2, axis)
        want = -(p * np.log(p)).sum(axis, keepdims=keepdims)
        assert h.shape == want.shape and h.dtype == dtype and exact.ulps(h, want) <= 5
        out = np.empty(want.shape, dtype)
        assert softmax.entropy(x, axis, keepdims, temperature=2.0, out=out) is out
        assert (out == h).all()


def test_entropy_of_masks():
    seen = np.array([True, False, True, True, False, True])
    x = np.where(seen, X, -np.inf)
    assert (softmax.entropy(X, mask=seen) == softmax.entropy(x)).all()
    assert softmax.entropy([3.0]) == 0.0 and softmax.entropy([7.0, 7.0]) == np.log(2)
    nothing = np.full(3, -np.inf, np.float32)
    assert np.isnan(softmax.entropy(nothing)) and softmax.entropy(nothing, masked="zero") == 0.0
    with pytest.raises(ValueError, match="temperature"):
        softmax.entropy(X, temperature=0.0)


@pytest.mark.parametrize("axis", [-1, 0, 1, (0, 1), (0, 2), None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_kl_divergence(axis, keepdims):
    for dtype in [np.float32, np.float64]:
        x = X.astype(dtype)
        y = x[::-1].copy() * dtype(0.75)
        kl = softmax.kl_divergence(x, y, axis, keepdims, temperature=2.0)
        p, q = (exact.softmax(a.astype(np.longdouble) / 2, axis) for a in [x, y])
        want = (p * (np.log(p) - np.log(q))).sum(axis, keepdims=keepdims)
        assert kl.shape == want.shape and kl.dtype == dtype and exact.ulps(kl, want) <= 8
        out = np.empty(want.shape, dtype)
        assert softmax.kl_divergence(x, y, axis, keepdims, temperature=2.0, out=out) is out
        assert (out == kl).all()


def test_kl_divergence_of_rows_that_hardly_differ():
    x = X.astype(np.float64)
    y = x.copy()
    y[..., 0] += 1e-7
    p = exact.softmax(x.astype(np.longdouble), -1)
    want = p[..., 0] * (1 - p[..., 0]) * 1e-14 / 2
    assert (abs(softmax.kl_divergence(x, y) / want - 1) < 1e-6).all()
    assert (softmax.kl_divergence(x, x) == 0).all()


def test_kl_divergence_of_masks_and_what_it_refuses():
    seen = np.array([True, False, True, True, False, True])
    y = X[::-1]
    x_seen, y_seen = (np.where(seen, a, -np.inf) for a in [X, y])
    want = softmax.kl_divergence(x_seen, y_seen)
    assert (softmax.kl_divergence(X, y, mask=seen) == want).all()
    assert (softmax.kl_divergence(X, y, mask=np.where(seen, 0.0, -np.inf)) == want).all()
    assert (softmax.kl_divergence(-X, -y, mask=seen, scale=-1) == want).all()
    assert softmax.kl_divergence([3.0, 1.0], [3.0, -np.inf]) == np.inf
    nothing = np.full(3, -np.inf)
    assert np.isnan(softmax.kl_divergence(nothing, nothing))
    assert softmax.kl_divergence(nothing, nothing, masked="zero") == 0.0
    with pytest.raises(ValueError, match="temperature"):
        softmax.kl_divergence(X, y, temperature=0.0)
    with pytest.raises(ValueError, match="only hide"):
        softmax.kl_divergence(X, y, mask=np.full(6, 0.5))
    with pytest.raises(ValueError, match=r"q_logits must have shape \(.*\), as p_logits"):
        softmax.kl_divergence(X, y[..., 1:])
    with pytest.raises(TypeError, match="q_logits must be float64, as p_logits, got float32"):
        softmax.kl_divergence(X, y.astype(np.float32))
    with pytest.raises(ValueError, match="out overlaps q_logits"):
        softmax.kl_divergence(X[0, 0], X[0, 1], out=X[0, 1, :1].reshape(()))


def test_log_softmax_and_scales():
    assert exact.is_log(softmax.log_softmax(X), exact.log_softmax(X))
    assert exact.is_log(softmax.log_softmax(np.float32(X)), exact.log_softmax(np.float32(X)))
    assert exact.ulps(softmax.softmax(X, scale=0.25), exact.softmax(X * 0.25)) <= 3
    assert (softmax.softmax(X, temperature=4.0) == softmax.softmax(X, scale=0.25)).all()
    assert (softmax.softmax(X, temperature=0.0) == softmax.hardmax(X)).all()


def test_sigmoid():
    with np.errstate(over="ignore"):
        want = 1 / (1 + np.exp(-X.astype(np.longdouble)))
    assert exact.ulps(softmax.sigmoid(X), want) <= 4
    many = np.linspace(-20, 20, 12_345)
    assert exact.ulps(softmax.sigmoid(many), 1 / (1 + np.exp(-many.astype(np.longdouble)))) <= 4
    assert (softmax.sigmoid(many[::3]) == softmax.sigmoid(many)[::3]).all()
    assert softmax.log_sigmoid([-1000.0, 1000.0]).tolist() == [-1000.0, 0.0]


def test_hardmax():
    x = np.float32([[1, 3, 3], [2, 1, 0]])
    assert softmax.hardmax(x).tolist() == [[0, 0.5, 0.5], [1, 0, 0]]
    assert softmax.hardmax(x, ties="first").tolist() == [[0, 1, 0], [1, 0, 0]]
    assert softmax.hardmax(x, 0).tolist() == [[0, 1, 1], [1, 0, 0]]


def test_argmax_of_nan_is_where_it_is():
    x = np.float32([[1, np.nan, 3], [1, 2, 3]])
    assert softmax.argmax(x).tolist() == np.argmax(x, -1).tolist() == [1, 2]
    assert softmax.argmax(x, None) == np.argmax(x)


def test_top_k():
    values, indices = softmax.top_k(X, 3)
    order = np.argsort(-X, -1, kind="stable")[..., :3]
    assert (indices == order).all()
    assert (values == np.take_along_axis(softmax.softmax(X), order, -1)).all()
    logs, _ = softmax.top_k(X, 3, values="log_probs")
    assert (logs == np.take_along_axis(softmax.log_softmax(X), order, -1)).all()
    assert softmax.top_k(X, 0)[0].shape == (4, 5, 0)


def test_route():
    x = np.float32(RNG.standard_normal((3, 40, 64)) * 2)
    values, indices = softmax.top_k(x, 8)
    weights, experts = softmax.route(x, 8)
    assert weights.shape == experts.shape == (3, 40, 8) and experts.dtype == np.int64
    assert (weights == values).all() and (experts == indices).all()
    # The softmax of the chosen logits.
    weights, experts = softmax.route(x, 8, renormalize=True)
    assert (experts == indices).all()
    assert (weights == softmax.softmax(np.take_along_axis(x, experts, -1))).all()
    # DeepSeek-V3.
    bias = np.float32(RNG.standard_normal(64) * 0.1)
    options = {"scoring": "sigmoid", "bias": bias, "groups": 8, "group_limit": 3}
    weights, experts = softmax.route(x, 6, renormalize=True, scaling_factor=2.5, **options)
    scores = softmax.sigmoid(x)
    keys = (scores + bias).reshape(3, 40, 8, 8)
    best = np.sort(keys, -1)[..., -2:].sum(-1)
    chosen = np.argsort(-best, -1, kind="stable")[..., :3]
    limited = np.full_like(keys, -np.inf)
    for g in range(3):
        at = chosen[..., g, None, None]
        np.put_along_axis(limited, at, np.take_along_axis(keys, at, -2), -2)
    want = np.argsort(-limited.reshape(x.shape), -1, kind="stable")[..., :6]
    assert (experts == want).all()
    logits = np.take_along_axis(x, want, -1).astype(np.longdouble)
    exact_scores = 1 / (1 + np.exp(-logits))
    assert exact.ulps(weights, 2.5 * exact_scores / exact_scores.sum(-1, keepdims=True)) <= 8
    assert softmax.route(X[0, 0], 2)[1].shape == (2,)
    assert softmax.route(x, 0)[0].shape == (3, 40, 0)
    # Along the last axis wherever it lies in memory; f64 in f64.
    turned = np.asfortranarray(X)
    for a, b in zip(softmax.route(turned, 3), softmax.route(X, 3)):
        assert (a == b).all() and a.dtype == b.dtype
    largest, _ = softmax.route(x, 2, groups=8, group_limit=1, group_score="largest")
    assert (largest[..., 0] == values[..., 0]).all()
    # Into arrays that are there, with gaps, too; more than one is written at once of 3 x 40 x 5.
    weights, experts = softmax.route(x, 5)
    for step in [1, 2]:
        wide = np.zeros((3, 40, 5 * step), np.float32), np.full((3, 40, 5 * step), 7, np.int64)
        out = tuple(a[..., ::step] for a in wide)
        got = softmax.route(x, 5, out=out)
        assert got[0] is out[0] and got[1] is out[1]
        assert (out[0] == weights).all() and (out[1] == experts).all()
        assert step == 1 or (wide[1][..., 1::2] == 7).all()
    with pytest.raises(TypeError, match="out has elements of type int32"):
        softmax.route(x, 5, out=(out[0], np.zeros((3, 40, 5), np.int32)))
    with pytest.raises(ValueError, match="overlaps the experts"):
        both = np.zeros((3, 40, 5), np.int64)
        softmax.route(x.astype(np.float64), 5, out=(both.view(np.float64), both))


def test_log_probs_and_perplexity():
    one = softmax.log_probs(X, LABELS)
    assert (one == np.take_along_axis(softmax.log_softmax(X), LABELS[..., None], -1)[..., 0]).all()
    many = softmax.log_probs(X, np.stack([LABELS, LABELS], -1))
    assert (many[..., 0] == one).all() and (many[..., 1] == one).all()
    assert softmax.perplexity(one) == pytest.approx(np.exp(-one.mean()))


def losses(x, labels, weight=None, smoothing=0.0, ignore=-100):
    """PyTorch's definition, in long double."""
    logs = exact.log_softmax(x)
    c = x.shape[-1]
    w = np.ones(c) if weight is None else np.asarray(weight, np.longdouble)
    safe = np.where(labels == ignore, 0, labels)
    own = -np.take_along_axis(logs, safe[..., None], -1)[..., 0] * w[safe]
    loss = (1 - smoothing) * own + smoothing / c * -(logs * w).sum(-1)
    weights = np.where(labels == ignore, 0, w[safe])
    return np.where(labels == ignore, 0, loss), weights


@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 2, 6)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(weight, smoothing):
    x = X.reshape(20, 6)
    labels = LABELS.reshape(20).copy()
    labels[3] = -100
    options = {"weight": weight, "label_smoothing": smoothing}
    want, weights = losses(x, labels, weight, smoothing)
    assert np.allclose(softmax.cross_entropy(x, labels, reduction="none", **options), want.astype(float), rtol=4e-15)
    total = softmax.cross_entropy(x, labels, reduction="sum", **options)
    assert total == pytest.approx(float(want.sum()), rel=1e-14)
    mean, gradient = softmax.cross_entropy_with_grad(x, labels, **options)
    assert mean == pytest.approx(float(want.sum() / weights.sum()), rel=1e-14)
    # The gradient by differences.
    for i, j in [(0, 0), (0, int(labels[0])), (3, 1), (19, 5)]:
        h = 1e-6
        up, down = x.copy(), x.copy()
        up[i, j] += h
        down[i, j] -= h
        slope = (softmax.cross_entropy(up, labels, **options) - softmax.cross_entropy(down, labels, **options)) / (
            2 * h
        )
        assert gradient[i, j] == pytest.approx(slope, abs=1e-8)
    in_place = x.copy()
    loss, same = softmax.cross_entropy_with_grad(in_place, labels, out=in_place, **options)
    assert same is in_place and (same == gradient).all() and loss == mean
    half, scaled = softmax.cross_entropy_with_grad(x, labels, gradient_factor=0.5, **options)
    assert half == mean and (scaled == gradient * 0.5).all()


def test_classes_are_the_second_axis_as_in_pytorch():
    x = np.moveaxis(X, -1, 1)
    assert softmax.cross_entropy(x, LABELS) == softmax.cross_entropy(X, LABELS, axis=-1)
    assert softmax.cross_entropy(X[0, 0], 2) == softmax.cross_entropy(X[0], [2] * 5, reduction="none")[0]
    loss, gradient = softmax.cross_entropy_with_grad(x, LABELS)
    assert gradient.shape == x.shape
    assert (np.moveaxis(gradient, 1, -1) == softmax.cross_entropy_with_grad(X, LABELS, axis=-1)[1]).all()


def test_probabilities_as_targets():
    q = softmax.softmax(X[::-1])
    want = -(q * exact.log_softmax(X)).sum(-1)
    assert np.allclose(softmax.cross_entropy(X, q, reduction="none", axis=-1), want.astype(float), rtol=4e-15)
    assert softmax.cross_entropy(X, softmax.softmax(X), axis=-1, divergence=True) == pytest.approx(0, abs=1e-15)


def test_nothing_has_no_mean():
    loss, gradient = softmax.cross_entropy_with_grad(X[0], [-100] * 5)
    assert np.isnan(loss) and (gradient == 0).all()


def test_attention():
    scores = RNG.standard_normal((2, 3, 4, 6)).astype(np.float32)
    mask = RNG.random((2, 1, 4, 6)) > 0.3
    mask[..., 0] = True
    seen = mask & (np.arange(6) <= np.arange(4)[:, None] + 2)
    want = exact.softmax(np.where(seen, scores * 0.125, -np.inf))
    got, logs = softmax.attention_softmax(scores, causal=True, mask=mask, scale=0.125, lse=True)
    assert exact.ulps(got, want) <= 3
    assert exact.is_log(logs, exact.logsumexp(np.where(seen, scores * np.longdouble(0.125), -np.inf)))
    added = np.where(mask, 0, -np.inf)
    for dtype in [np.float32, np.float64, np.float16]:
        again = softmax.attention_softmax(scores, causal=True, mask=added.astype(dtype), scale=0.125)
        assert (again == got).all()
    assert softmax.attention_softmax(scores, causal=True, out=scores) is scores
    x = np.float32([[1, 2, 3]])
    assert softmax.attention_softmax(x, lengths=[2])[0, 2] == 0
    assert softmax.attention_softmax(x, window=1).tolist() == [[0, 0, 1]]
    assert softmax.attention_softmax(x, offset=0, causal=True).tolist() == [[1, 0, 0]]
    assert softmax.attention_softmax(x * 0, sinks=[0.0]).tolist() == [[0.25] * 3]
    z = softmax.attention_softmax(x, alibi=[0.5])
    assert exact.ulps(z, exact.softmax(x + np.float32([[-1, -0.5, 0]]))) <= 3
    z = softmax.attention_softmax(x, soft_cap=2.0)
    assert exact.ulps(z, exact.softmax(2 * np.tanh(x.astype(np.longdouble) / 2))) <= 3
    half = softmax.attention_softmax(x, dtype=np.float16)
    assert half.dtype == np.float16 and exact.ulps(half, exact.softmax(x)) <= 0.54


def test_draws():
    logits = np.float32([[2, 1, 1, -np.inf], [-np.inf, -np.inf, -np.inf, 0]]) * np.float32(np.log(2))
    sampler = softmax.Sampler(seed=5)
    draws = sampler.sample(logits, 10_000)
    assert draws.shape == (2, 10_000) and draws.dtype == np.int64 and (draws[1] == 3).all()
    counts = np.bincount(draws[0], minlength=4) / 10_000
    assert abs(counts - [0.5, 0.25, 0.25, 0]).max() < 0.03 and counts[3] == 0
    assert (sampler.sample(logits, 10_000) == draws).all()
    assert (sampler.sample(logits[1:], 10, first_row=1) == draws[1:, :10]).all()
    assert (sampler.sample(logits, 10_000, step=1) != draws).any()
    assert sampler.sample(logits).shape == (2,) and sampler.sample(logits[0]).shape == ()
    assert set(softmax.Sampler(top_k=1).sample(logits, 9).ravel().tolist()) == {0, 3}
    assert (softmax.Sampler(bias={1: 99.0}).sample(logits, 9)[0] == 1).all()
    penalised = softmax.Sampler(temperature=0.0, presence_penalty=5.0)
    assert penalised.sample(logits, history=[[0], []]).tolist() == [1, 3]
    assert penalised.sample(logits[:1], history=[0, 1]).tolist() == [2]
    assert softmax.Sampler().sample(np.float32([[np.nan, 1]])).tolist() == [-1]


def test_speculative():
    target = RNG.standard_normal((2, 3, 50)).astype(np.float32) * 3
    sampler = softmax.SpeculativeSampler(5, temperature=0.8)
    greedy = softmax.SpeculativeSampler(temperature=0.0)
    largest = target.argmax(-1)
    drafted = largest[:, :2].copy()
    drafted[1, 1] = (drafted[1, 1] + 1) % 50
    tokens, accepted = greedy.verify(target, drafted)
    assert accepted.tolist() == [2, 1] and accepted.dtype == tokens.dtype == np.int64
    assert tokens[0].tolist() == largest[0].tolist()
    assert tokens[1].tolist() == [*largest[1, :2], -1]
    # A draft that is the target is accepted; as logits and as probabilities.
    draft = np.ascontiguousarray(target[:, :2])
    tokens, accepted = sampler.verify(target, drafted, draft)
    assert accepted.tolist() == [2, 2] and (tokens[:, :2] == drafted).all()
    probs = softmax.softmax(target, temperature=0.8)
    of_probs = sampler.verify(probs, drafted, probs[:, :2], target_probs=True, draft_probs=True)
    assert (of_probs[0] == tokens).all()
    mixed = sampler.verify(target, drafted, probs[:, :2], draft_probs=True)
    assert (mixed[0] == tokens).all()
    # Sequences by offsets, alone, and with seeds of their own.
    offsets = [0, 1, 1, 4]
    flat, some = target.reshape(6, 50), [1, 2, 3, 4]
    rows = np.concatenate([flat, flat[:1]])
    for draft in [None, flat[2:]]:
        tokens, accepted = sampler.verify(rows, some, draft, offsets=offsets, steps=[7, 8, 9], temperatures=[1, 2, 0.5])
        assert tokens.shape == (7,) and accepted.shape == (3,)
        alone, count = softmax.SpeculativeSampler(5, temperature=0.5).verify(
            rows[3:], some[1:], None if draft is None else draft[1:], step=9, first_row=2
        )
        assert alone.tolist() == tokens[3:].tolist() and count.item() == accepted[2] and count.shape == ()
    one = sampler.verify(rows[:2], [1], seeds=[3])[0]
    two = sampler.verify(np.stack([rows[:2]] * 2), [[1], [1]], seeds=[4, 3])[0]
    assert (two[1] == one).all() and two[0].tolist() != one.tolist()
    # The distribution of what comes out: here of the first token.
    n, p, q = 20_000, np.float64([0.5, 0.3, 0.2]), np.float64([0.2, 0.2, 0.6])
    proposed = softmax.Sampler(3).sample(np.log(q), n)[:, None]
    rows, draft = np.broadcast_to(p, (n, 2, 3)), np.broadcast_to(q, (n, 1, 3))
    tokens, accepted = softmax.SpeculativeSampler(3).verify(rows, proposed, draft, target_probs=True, draft_probs=True)
    assert abs(np.bincount(tokens[:, 0], minlength=3) / n - p).max() < 0.02
    assert abs(accepted.mean() - np.minimum(p, q).sum()) < 0.02
    rows = np.float32([[0, 0], [np.nan, 0]])
    assert sampler.verify(rows, [], target_probs=True, offsets=[0, 0, 0])[0].tolist() == [-1, -1]


def test_shards():
    row = RNG.standard_normal(10_000).astype(np.float32) * 5
    parts = np.split(row, [4096, 8192])
    shards = softmax.Shards(temperature=2.0)
    partials = np.concatenate([shards.partials(part) for part in parts])
    assert partials.shape == (3, 4)
    merged = shards.merge(partials)
    got = np.concatenate([shards.softmax(merged, part) for part in parts])
    assert (got == softmax.softmax(row, temperature=2.0)).all()
    logs = np.concatenate([shards.log_softmax(merged, part) for part in parts])
    assert (logs == softmax.log_softmax(row, temperature=2.0)).all()
    assert np.float32(shards.logsumexp(merged)) == softmax.logsumexp(row, temperature=2.0)
    part = parts[2].copy()
    assert shards.softmax(merged, part, out=part) is part and (part == got[8192:]).all()
    assert (shards.softmax(shards.merge(merged.to_partial()), parts[0]) == got[:4096]).all()
    # Beyond 45,000 the row's largest element has to be known first.
    far = row.astype(np.float64) + 1e6
    again = softmax.Shards().merge(softmax.Shards().partials(far), "float64")
    assert again == far.max()
    done = softmax.Shards().merge(softmax.Shards().partials(far, again), "float64")
    assert (softmax.Shards().softmax(done, far) == softmax.softmax(far)).all()


def test_what_it_tells():
    assert "scalar" in softmax.kernels() and softmax.info()["kernel"] in softmax.kernels()
    plan = softmax.plan((1000, 10))
    assert plan["regime"] == "tiny" and plan["kernel"] == softmax.info()["kernel"]
    assert softmax.plan((4, 1000), "bfloat16", "logsumexp", threads=1)["threads"] == 1
    softmax.release_scratch()


def test_masks_of_rows():
    mask = RNG.random(X.shape) > 0.4
    mask[..., 0] = True
    hidden = np.where(mask, X, -np.inf)
    for axis in [-1, 0, 1, (0, 2), None]:
        for name in ["softmax", "log_softmax", "logsumexp"]:
            f = getattr(softmax, name)
            want = f(hidden, axis)
            assert np.array_equal(f(X, axis, mask=mask), want, equal_nan=True)
            added = np.where(mask, 0.0, -np.inf)
            assert np.array_equal(f(X, axis, mask=added), want, equal_nan=True)
    # One row for all, and broadcast otherwise.
    row = np.array([True, False, True, True, False, True])
    assert (softmax.softmax(X, mask=row) == softmax.softmax(np.where(row, X, -np.inf))).all()
    column = np.array([True, False, True, True, False])[:, None]
    assert (softmax.softmax(X, 1, mask=column) == softmax.softmax(np.where(column, X, -np.inf), 1)).all()
    y = X.copy()
    assert softmax.softmax(y, mask=row, out=y) is y and (y == softmax.softmax(X, mask=row)).all()
    bias = RNG.standard_normal(6)
    assert exact.ulps(softmax.softmax(X, mask=bias), exact.softmax(X + bias.astype(np.longdouble))) <= 4
    assert softmax.softmax(np.float32([1, 2]), mask=[False, False], masked="zero").tolist() == [0, 0]
    with pytest.raises(ValueError, match=r"mask.*\(4, 5, 6\).*\(5,\)"):
        softmax.softmax(X, mask=np.ones(5, bool))
    with pytest.raises(TypeError, match="mask must be bool"):
        softmax.softmax(X, mask=np.ones(6, int))


def bits_of(seen):
    """One bit an element, in uint32."""
    n = -(-seen.shape[-1] // 32) * 32
    padded = np.zeros((*seen.shape[:-1], n), np.uint8)
    padded[..., : seen.shape[-1]] = seen
    return np.packbits(padded, axis=-1, bitorder="little").view(np.dtype("<u4")).astype(np.uint32)


def test_masks_of_bits():
    x = RNG.standard_normal((3, 4, 70)).astype(np.float32)
    seen = RNG.random(x.shape) > 0.6
    seen[..., 0] = True
    for mask in [seen, seen[0, 0], seen[:1], seen[:, :1]]:
        words = bits_of(mask)
        for bits in [words, words.view(np.int32), np.ascontiguousarray(words.T).T, np.pad(words, [(0, 0)] * (words.ndim - 1) + [(0, 2)])]:
            for name in ["softmax", "log_softmax", "logsumexp"]:
                f = getattr(softmax, name)
                assert np.array_equal(f(x, bitmask=bits), f(x, mask=mask))
            sampler = softmax.Sampler(3, temperature=2.0)
            assert np.array_equal(sampler.sample(x, 2, bitmask=bits), sampler.sample(x, 2, mask=mask))
            got = softmax.attention_softmax(x, bitmask=bits, causal=True)
            assert np.array_equal(got, softmax.attention_softmax(x, mask=mask, causal=True))
    # Fewer bits than elements.
    short = bits_of(seen[..., :40])
    want = softmax.softmax(x, mask=seen & (np.arange(70) < 40))
    assert np.array_equal(softmax.softmax(x, bitmask=short, hidden_from=40), want)
    assert np.array_equal(softmax.attention_softmax(x, bitmask=short, hidden_from=40), want)
    drawn = softmax.Sampler(3).sample(x, 9, bitmask=short, hidden_from=40)
    assert (drawn < 40).all() and np.take_along_axis(seen, drawn, -1).all()
    assert (softmax.Sampler(3).sample(x, bitmask=np.zeros(3, np.int32)) == -1).all()
    for call in [softmax.softmax, softmax.logsumexp, softmax.attention_softmax, softmax.Sampler(1).sample]:
        with pytest.raises(ValueError, match="at least 3, got 2"):
            call(x, bitmask=short)
        with pytest.raises(ValueError, match="no more than there are"):
            call(x, bitmask=bits_of(seen), hidden_from=71)
        with pytest.raises(ValueError, match="bitmask must have a shape"):
            call(x, bitmask=bits_of(seen)[:2])
        with pytest.raises(TypeError, match="bitmask must be .* int32 or uint32, got int64"):
            call(x, bitmask=np.zeros(3, np.int64))
        with pytest.raises(TypeError, match="got list"):
            call(x, bitmask=[1, 2, 3])
        with pytest.raises(ValueError, match="mask and bitmask"):
            call(x, bitmask=bits_of(seen), mask=seen)
        with pytest.raises(ValueError, match="hidden_from needs a bitmask"):
            call(x, hidden_from=3)
    with pytest.raises(ValueError, match="last axis"):
        softmax.softmax(x, 1, bitmask=np.zeros(1, np.int32))


def test_masks_of_bits_of_tensors():
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(RNG.standard_normal((2, 70)))
    seen = RNG.random((2, 70)) > 0.5
    bits = torch.from_numpy(bits_of(seen).view(np.int32))
    assert torch.equal(softmax.softmax(x, bitmask=bits), softmax.softmax(x, mask=torch.from_numpy(seen)))


def test_masks_of_many_rows_go_with_their_rows():
    # As many elements as are done in several parts, between which Python looks for signals.
    x = np.zeros((1 << 14, 1 << 12), np.float32)
    mask = np.zeros(x.shape, bool)
    mask[np.arange(len(x)), np.arange(len(x)) % 4096] = True
    y = softmax.softmax(x, mask=mask, out=x)
    assert (y[np.arange(len(x)), np.arange(len(x)) % 4096] == 1).all()


def test_logsumexp_with_weights():
    w = RNG.random(X.shape)
    want = exact.logsumexp(X + np.log(w.astype(np.longdouble)))
    assert exact.is_log(softmax.logsumexp(X, weights=w), want)
    row = RNG.random(6).astype(np.float32)
    for axis, weights in [(-1, row), (0, w), (None, w), ((0, 2), row)]:
        want = exact.logsumexp(X + np.log(np.broadcast_to(weights, X.shape).astype(np.longdouble)), axis)
        assert exact.is_log(softmax.logsumexp(X, axis, weights=weights), want)
    with pytest.raises(ValueError, match="weight"):
        softmax.logsumexp(X, weights=-row)


def test_softmin():
    assert (softmax.softmax(X, scale=-1.0) == softmax.softmax(-X)).all()
    assert (softmax.log_softmax(X, 0, scale=-1.0) == softmax.log_softmax(-X, 0)).all()


def test_weights_of_classes_in_f64():
    w = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    x, labels = X.reshape(20, 6), LABELS.reshape(20)
    want, _ = losses(x, labels, w)
    assert np.allclose(softmax.cross_entropy(x, labels, w, reduction="none"), want.astype(float), rtol=4e-15)


def test_special():
    special = pytest.importorskip("scipy.special")
    import softmax.special as ours

    a, b = RNG.standard_normal((2, 5, 7))
    for axis in [None, 0, 1, (0, 1)]:
        for keepdims in [False, True]:
            x, s = ours.logsumexp(a, axis, b, keepdims, True)
            y, t = special.logsumexp(a, axis, b, keepdims, True)
            assert np.allclose(x, y) and (s == t).all() and np.shape(x) == np.shape(y)
    assert np.allclose(ours.expit(a), special.expit(a)) and np.allclose(ours.log_expit(a), special.log_expit(a))


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "logsumexp", "entropy"])
@pytest.mark.parametrize("axis", [-1, 0, (0, 2)])
def test_factors_of_rows(name, axis):
    f = getattr(softmax, name)
    rows = {-1: 20, 0: 30, (0, 2): 5}[axis]
    factors = RNG.uniform(0.1, 3, rows)
    mask = RNG.random(X.shape) < 0.9
    axes = axis if isinstance(axis, tuple) else (axis % 3,)
    order = [a for a in range(3) if a not in axes] + list(axes)
    moved = X.transpose(order).reshape(rows, -1)
    for keyword in ["scale", "temperature"]:
        for seen in [None, mask]:
            y = f(X, axis, mask=seen, **{keyword: factors})
            seen = mask.transpose(order).reshape(rows, -1) if seen is mask else [None] * rows
            want = [f(r, mask=m, **{keyword: v}) for r, m, v in zip(moved, seen, factors)]
            if y.ndim == 3:
                y = y.transpose(order)
            assert np.array_equal(y.reshape(np.shape(want)), want)
    with pytest.raises(ValueError, match=f"temperature must be one, or {rows} for rows of shape"):
        f(X, axis, temperature=factors[1:])
    with pytest.raises(TypeError, match="scale must be a number, or one for each row, not str"):
        f(X, axis, scale="1")


def test_factors_of_rows_are_of_any_kind():
    import torch

    want = softmax.softmax(X[0], temperature=[1.0, 2.0, 0.5, 0.0, np.inf])
    assert want[3].max() == 1.0 and len(set(want[4])) == 1
    for kind in [tuple, np.array, torch.tensor]:
        y = softmax.softmax(X[0], temperature=kind([1.0, 2.0, 0.5, 0.0, np.inf]))
        assert np.array_equal(y, want)


def test_samplers_with_settings_of_rows():
    x = RNG.standard_normal((6, 50)).astype(np.float32)
    each = dict(
        seed=[5, 6, 7, 7, 8, 9],
        temperature=np.array([1.0, 0.0, 0.5, 2.0, 1.0, 1.0]),
        top_k=[0, 3, 5, 0, 0, 10],
        top_p=[1.0, 0.9, 0.5, 0.8, 1.0, 1.0],
        min_p=[0.0, 0.0, 0.1, 0.0, 0.0, 0.0],
        typical_p=(1.0, 1.0, 1.0, 0.9, 0.8, 1.0),
    )
    steps = [3, 0, 1, 2, 9, 4]
    for shape in [(6, 50), (2, 3, 50)]:
        draws = softmax.Sampler(**each).sample(x.reshape(shape), 8, step=steps).reshape(6, 8)
        for i in range(6):
            own = softmax.Sampler(**{name: values[i] for name, values in each.items()})
            assert (draws[i] == own.sample(x[i], 8, step=steps[i])).all()
    # Without seeds of their own rows are numbered.
    draws = softmax.Sampler(3, temperature=each["temperature"]).sample(x, 8)
    for i in range(6):
        own = softmax.Sampler(3, temperature=each["temperature"][i])
        assert (draws[i] == own.sample(x[i], 8, first_row=i)).all()
    for name in each:
        with pytest.raises(ValueError, match=f"{name} must be one, or 2 for rows of shape"):
            softmax.Sampler(**{name: each[name]}).sample(x[:2])
    with pytest.raises(ValueError, match="step must be one, or 6"):
        softmax.Sampler().sample(x, step=[1, 2])
    with pytest.raises(ValueError, match="top-p 1 must be in 0..=1, got 1.5"):
        softmax.Sampler(top_p=[0.5, 1.5]).sample(x[:2])
    with pytest.raises(TypeError, match="top_k must be an integer"):
        softmax.Sampler(top_k=[1.5])
    with pytest.raises(TypeError, match="top_p must be a number, or one for each row"):
        softmax.Sampler(top_p=["a"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_ragged(dtype):
    lengths = RNG.integers(0, 40, 200)
    lengths[5] = 9000
    # The first three elements and the last two are of no row.
    offsets = 3 + np.concatenate([[0], np.cumsum(lengths)])
    x = (RNG.standard_normal(offsets[-1] + 2) * 4).astype(dtype)
    for kind in [np.int64, np.int32]:
        y = softmax.softmax_ragged(x, offsets.astype(kind), scale=0.5)
        log_y = softmax.log_softmax_ragged(x, offsets.astype(kind).tolist(), scale=0.5)
        lse = softmax.logsumexp_ragged(x, offsets.astype(kind), scale=0.5)
        indices = softmax.argmax_ragged(x, offsets.astype(kind))
        assert lse.dtype == dtype and lse.shape == (200,) and indices.dtype == np.int64
        for i in range(200):
            row = x[offsets[i] : offsets[i + 1]]
            if not len(row):
                assert lse[i] == -np.inf and indices[i] == -1
                continue
            part = slice(offsets[i], offsets[i + 1])
            assert (y[part] == softmax.softmax(row, scale=0.5)).all()
            assert (log_y[part] == softmax.log_softmax(row, scale=0.5)).all()
            assert lse[i] == softmax.logsumexp(row, scale=0.5) and indices[i] == row.argmax()
        assert (y[[0, 1, 2, -2, -1]] == 0).all()
    # In place, with gaps, and into memory that is there: what is of no row stays as it is.
    z = x.copy()
    assert softmax.softmax_ragged(z, offsets, scale=0.5, out=z) is z
    assert (z[3:-2] == y[3:-2]).all() and (z[:3] == x[:3]).all() and (z[-2:] == x[-2:]).all()
    wide = np.repeat(x, 2)
    assert (softmax.softmax_ragged(wide[::2], offsets, scale=0.5) == y).all()
    out = np.full_like(x, 7)
    softmax.softmax_ragged(wide[::2], offsets, scale=0.5, out=out)
    assert (out[3:-2] == y[3:-2]).all()


def rows_of(offsets):
    return [slice(*ends) for ends in zip(offsets[:-1], offsets[1:])]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_ragged_losses(dtype, reduction):
    lengths = RNG.integers(0, 12, 60)
    lengths[[4, 9]] = [0, 5000]
    # The first element and the last two are of no row.
    offsets = 1 + np.concatenate([[0], np.cumsum(lengths)])
    x = (RNG.standard_normal(offsets[-1] + 2) * 3).astype(dtype)
    labels = np.array([RNG.integers(n) if n else -100 for n in lengths])
    labels[20] = -100
    options = {"reduction": reduction, "scale": 0.5, "z_loss": 1e-3}
    loss = softmax.cross_entropy_ragged(x, offsets, labels, **options)
    again, gradient = softmax.cross_entropy_with_grad_ragged(x, offsets, labels, **options)
    assert np.array_equal(loss, again) and gradient.dtype == dtype
    # As each row alone, with the divisor of all of them.
    counted = (labels != -100).sum() if reduction == "mean" else 1
    alone = np.zeros(60)
    for i, part in enumerate(rows_of(offsets)):
        if labels[i] == -100:
            assert (gradient[part] == 0).all()
            continue
        alone[i], want = softmax.cross_entropy_with_grad(
            x[None, part], labels[i : i + 1], gradient_factor=1 / counted, **(options | {"reduction": "sum"})
        )
        assert (gradient[part] == want[0]).all()
    if reduction == "none":
        assert loss.shape == (60,) and (loss == alone).all()
    else:
        assert loss == pytest.approx(alone.sum() / counted, rel=1e-12)
    assert (gradient[[0, -2, -1]] == 0).all()
    # In place, and into memory with gaps: what is of no row stays.
    z = x.copy()
    assert softmax.cross_entropy_with_grad_ragged(z, offsets, labels, out=z, **options)[1] is z
    assert (z[1:-2] == gradient[1:-2]).all() and z[0] == x[0] and (z[-2:] == x[-2:]).all()
    wide = np.full(2 * len(x), 7, dtype)
    softmax.cross_entropy_with_grad_ragged(x, offsets, labels, out=wide[::2], **options)
    assert (wide[2:-4:2] == gradient[1:-2]).all() and (wide[1::2] == 7).all() and wide[0] == 7
    # Probabilities, which lie as the logits do; those of the labels give the same.
    probs = np.zeros_like(x)
    probs[(offsets[:-1] + labels)[labels != -100]] = 1
    some = offsets[[10, 20]]
    assert np.array_equal(
        softmax.cross_entropy_ragged(x, some, probs, reduction="none"),
        [float(softmax.cross_entropy(x[None, slice(*some)], probs[None, slice(*some)]))],
    )
    double, factors = softmax.cross_entropy_with_grad_ragged(x, offsets, labels, row_factors=np.full(60, 2.0), **options)
    if dtype != np.float16:
        assert (factors == 2 * gradient).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("log", [False, True])
def test_ragged_backward(dtype, log):
    lengths = RNG.integers(0, 20, 50)
    offsets = 2 + np.concatenate([[0], np.cumsum(lengths)])
    x = (RNG.standard_normal(offsets[-1] + 1) * 3).astype(dtype)
    upstream = RNG.standard_normal(len(x)).astype(dtype)
    y = (softmax.log_softmax_ragged if log else softmax.softmax_ragged)(x, offsets, temperature=0.7)
    gradient = softmax.softmax_backward_ragged(y, upstream, offsets, log=log, temperature=0.7)
    for part in rows_of(offsets):
        want = softmax.softmax_backward(y[part], upstream[part], log=log, temperature=0.7)
        assert (gradient[part] == want).all()
    assert (gradient[[0, 1, -1]] == 0).all() and gradient.dtype == dtype
    out = np.full_like(x, 7)
    assert softmax.softmax_backward_ragged(y, upstream, offsets, log=log, temperature=0.7, out=out) is out
    assert (out[2:-1] == gradient[2:-1]).all() and (out[[0, 1, -1]] == 7).all()


def test_ragged_losses_of_what_does_not_fit():
    x = np.arange(5.0)
    for target, message in [
        ([0], "labels"),
        ([0, 3], "label|column"),
        ([[0, 1]], "target must have one axis"),
        (np.ones(4), r"target, which are probabilities, must have shape \(5,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            softmax.cross_entropy_ragged(x, [0, 3, 5], target)
    with pytest.raises(TypeError, match="must be float64, as the logits, got float32"):
        softmax.cross_entropy_ragged(x, [0, 3, 5], np.ones(5, np.float32))
    with pytest.raises(ValueError, match="grad must have shape"):
        softmax.softmax_backward_ragged(x, x[:4], [0, 3, 5])
    with pytest.raises(ValueError, match="out must be memory apart from y"):
        softmax.softmax_backward_ragged(x, x.copy(), [0, 3, 5], out=x)
    # Tensors come out as tensors.
    import torch

    loss, gradient = softmax.cross_entropy_with_grad_ragged(torch.tensor(x), [0, 3, 5], torch.tensor([2, 0]))
    assert loss.dtype == torch.float64 and loss.shape == () and gradient.shape == (5,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_masks_of_picks(dtype):
    x = RNG.standard_normal((4, 3, 70)).astype(dtype)
    seen = RNG.random((4, 3, 70)) < 0.5
    words = np.packbits(np.pad(seen, ((0, 0), (0, 0), (0, 26))), axis=-1, bitorder="little").view(np.uint32)
    hidden = np.where(seen, x, -np.inf).astype(dtype)
    for mask in [{"mask": seen}, {"bitmask": words}, {"mask": np.where(seen, 0, -np.inf).astype(np.float32)}]:
        for values in ["probs", "log_probs"]:
            got, places = softmax.top_k(x, 5, values=values, scale=0.5, **mask)
            want, at = softmax.top_k(hidden, 5, values=values, scale=0.5)
            assert (got == want).all() and (places == at).all()
        logits, places = softmax.top_k(x, 5, values="logits", **mask)
        assert (logits == np.take_along_axis(x, places, -1)).all() and (places == at).all()
        tokens = RNG.integers(70, size=(4, 3, 6))
        assert (softmax.log_probs(x, tokens, **mask) == softmax.log_probs(hidden, tokens)).all()
    # Along another axis, one mask for all rows, and a mask that ends before the row.
    got, places = softmax.top_k(x, 2, axis=0, mask=seen)
    want, at = softmax.top_k(hidden, 2, axis=0)
    assert np.array_equal(got, want, equal_nan=True) and (places == at)[~np.isnan(want)].all()
    one = softmax.log_probs(x, tokens, mask=seen[0, 0])
    assert (one == softmax.log_probs(np.where(seen[0, 0], x, -np.inf).astype(dtype), tokens)).all()
    few = softmax.top_k(x, 2, bitmask=words[0, 0], hidden_from=40)
    upto = np.where(seen[0, 0] & (np.arange(70) < 40), x, -np.inf).astype(dtype)
    assert (few[0] == softmax.top_k(upto, 2)[0]).all()
    with pytest.raises(ValueError, match="mask must have a shape"):
        softmax.top_k(x, 2, mask=seen[0, :2])
    with pytest.raises(ValueError, match="one of mask and bitmask"):
        softmax.log_probs(x, tokens, mask=seen, bitmask=words)


def test_ragged_of_tensors_and_errors():
    import torch

    nested = torch.nested.nested_tensor([torch.randn(n) for n in [3, 1, 7]], layout=torch.jagged)
    y = softmax.softmax_ragged(nested.values(), nested.offsets())
    assert isinstance(y, torch.Tensor)
    for row, want in zip(y.split([3, 1, 7]), nested.unbind()):
        assert torch.allclose(row, torch.softmax(want, -1))
    x = np.zeros(5)
    for offsets, message in [
        ([0, 3, 2], "must be"),
        ([-1, 3], "must be"),
        ([0, 6], "must be"),
        ([0, 2**32 + 5], "4294967301"),
        ([], "offset"),
        ([[0, 5]], "offsets must have one axis"),
    ]:
        with pytest.raises(ValueError, match=message):
            softmax.softmax_ragged(x, np.array(offsets, int))
    with pytest.raises(ValueError, match="x must have one axis"):
        softmax.softmax_ragged(np.zeros((2, 2)), [0, 2])
    with pytest.raises(TypeError):
        softmax.softmax_ragged(x, [0.0, 5.0])
