"""This package beside SciPy, NumPy as people write it, PyTorch and JAX, in interleaved rounds.

    pip install ./python scipy torch jax ml_dtypes
    python python/bench.py [--quick] [--only SUBSTRING] [--threads 1]

Prints a table in Markdown with the CPU's name. Every result is checked against float64 before anything is
timed. Peers that are not installed are left out, which is printed. All that allocate their output do so in
every call, as people call them; "out=" writes into the same memory again. On one thread all run on one CPU.
"""

import argparse
import os
import random
import statistics
import sys
import time
from functools import partial

# The package that is installed, not the folder of source beside this file.
sys.path.remove(os.path.dirname(os.path.abspath(__file__)))

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller matrices")
parser.add_argument("--only", default="", help="rows of the table whose name has this")
parser.add_argument("--threads", type=int, default=1)
arguments = parser.parse_args()
THREADS = arguments.threads
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(THREADS)
# JAX has no other way to be told.
os.environ["XLA_FLAGS"] = (
    f"--xla_cpu_multi_thread_eigen={str(THREADS > 1).lower()} intra_op_parallelism_threads={THREADS}"
)
# What this package is asked, where the CPUs that it may use do not tell.
OPTIONS = {"threads": THREADS}
if THREADS == 1 and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    OPTIONS = {}

import numpy as np  # noqa: E402

import softmax  # noqa: E402

MISSING = []


def optional(name):
    try:
        return __import__(name, fromlist=["x"])
    except ImportError as e:
        MISSING.append(f"{name} ({e})")
        return None


torch, jax, special, ml_dtypes = map(optional, ["torch", "jax", "scipy.special", "ml_dtypes"])
if torch:
    torch.set_num_threads(THREADS)


def cpu():
    try:
        with open("/proc/cpuinfo") as info:
            return next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        return "an unknown CPU"


def logits(rows, cols, dtype=np.float32):
    tile = np.random.default_rng(1).standard_normal((min(rows, 4096), cols), np.float32) * 3
    repeats = -(-rows // len(tile))
    return np.tile(tile, (repeats, 1))[:rows].astype(dtype)


def numpy_softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def as_array(y):
    if torch and isinstance(y, torch.Tensor):
        return y.detach().double().numpy()
    return np.asarray(y).astype(np.float64)


def softmaxes(x, axis=-1):
    """Everyone's call, with a name."""
    half = x.dtype.name == "bfloat16"
    out = np.empty_like(x)
    # A call with ** takes longer by itself than a call as people write it.
    ours = partial(softmax.softmax, **OPTIONS) if OPTIONS else softmax.softmax
    yield "softmax", lambda: ours(x, axis)
    yield "softmax, out=", lambda: ours(x, axis, out=out)
    if torch:
        t = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16) if half else torch.from_numpy(x)
        o = torch.empty_like(t)
        yield "softmax of a tensor", lambda: ours(t, axis)
        yield "softmax of a tensor, out=", lambda: ours(t, axis, out=o)
        yield "torch", lambda: torch.softmax(t, axis)
        yield "torch, out=", lambda: torch.softmax(t, axis, out=o)
    if special and not half:
        yield "scipy", lambda: special.softmax(x, axis)
    yield "numpy", lambda: numpy_softmax(x, axis)
    if jax:
        j, f = jax.numpy.asarray(x), jax.jit(jax.nn.softmax, static_argnums=1)
        yield "jax", lambda: f(j, axis).block_until_ready()


def losses(x):
    labels = np.arange(len(x)) * 7919 % x.shape[1]
    yield "softmax", lambda: softmax.cross_entropy_with_grad(x, labels, **OPTIONS)[1]
    out = np.empty_like(x)
    yield "softmax, out=", lambda: softmax.cross_entropy_with_grad(x, labels, out=out, **OPTIONS)[1]
    if torch:
        t, y = torch.from_numpy(x).requires_grad_(), torch.from_numpy(labels)

        def step(cross_entropy):
            t.grad = None
            cross_entropy(t, y).backward()
            return t.grad

        import softmax.torch

        yield "softmax.torch", lambda: step(softmax.torch.cross_entropy)
        yield "torch", lambda: step(torch.nn.functional.cross_entropy)
    if jax:
        j, k = jax.numpy.asarray(x), jax.numpy.asarray(labels)
        loss = lambda x: -jax.numpy.take_along_axis(jax.nn.log_softmax(x), k[:, None], 1).mean()  # noqa: E731
        f = jax.jit(jax.grad(loss))
        yield "jax", lambda: f(j).block_until_ready()


def draws(x):
    """Top-p 0.9, as transformers does it."""
    sampler = softmax.Sampler(seed=1, top_p=0.9, **OPTIONS)
    yield "softmax", lambda: sampler.sample(x)
    if torch:
        t = torch.from_numpy(x)

        def draw():
            ordered, indices = torch.sort(t, descending=False)
            remove = ordered.softmax(-1).cumsum(-1) <= 0.1
            filtered = t.masked_fill(remove.scatter(1, indices, remove), -torch.inf)
            return torch.multinomial(filtered.softmax(-1), 1)[:, 0]

        yield "torch", draw


def routes(x):
    """The weights of 8 experts, the largest first, as Mixtral and Qwen3-MoE have them."""
    yield "softmax", lambda: softmax.route(x, 8, renormalize=True, **OPTIONS)[0]
    out = np.empty((len(x), 8), np.float32), np.empty((len(x), 8), np.int64)
    yield "softmax, out=", lambda: softmax.route(x, 8, renormalize=True, out=out, **OPTIONS)[0]
    if torch:
        t = torch.from_numpy(x)
        yield "softmax of a tensor", lambda: softmax.route(t, 8, renormalize=True, **OPTIONS)[0]

        def route():
            values, _ = torch.topk(torch.softmax(t, -1), 8)
            return values / values.sum(-1, keepdim=True)

        probs, picked = torch.empty_like(t), (torch.empty(len(x), 8), torch.empty(len(x), 8, dtype=torch.int64))

        def route_out():
            values, _ = torch.topk(torch.softmax(t, -1, out=probs), 8, out=picked)
            return torch.div(values, values.sum(-1, keepdim=True), out=values)

        yield "torch", route
        yield "torch, out=", route_out


def lengths():
    """Of the rows of a graph: 0 to 30 elements, 10 on average; 10 million elements together."""
    return np.random.default_rng(2).binomial(30, 1 / 3, 62_500 if arguments.quick else 1_000_000)


def ragged(x):
    """Of rows of these lengths; dense rows of 10 are there to compare with."""
    n = lengths()
    offsets = np.concatenate([[0], np.cumsum(n)])
    dense = x[: len(x) // 10 * 10].reshape(-1, 10)
    yield "softmax", lambda: softmax.softmax_ragged(x, offsets, **OPTIONS)
    out, dense_out = np.empty_like(x), np.empty_like(dense)
    yield "softmax, out=", lambda: softmax.softmax_ragged(x, offsets, out=out, **OPTIONS)
    yield "softmax of dense rows, out=", lambda: softmax.softmax(dense, out=dense_out, **OPTIONS)
    if torch:
        t, rows = torch.from_numpy(x), torch.from_numpy(np.repeat(np.arange(len(n)), n))
        every, bounds = torch.from_numpy(n), torch.from_numpy(offsets)

        def scatter():
            largest = torch.full((len(n),), -torch.inf).scatter_reduce(0, rows, t, "amax")
            e = torch.exp(t - largest[rows])
            return e / torch.zeros(len(n)).index_add(0, rows, e)[rows]

        def segments():
            largest = torch.segment_reduce(t, "max", offsets=bounds)
            e = torch.exp(t - torch.repeat_interleave(largest, every))
            return e / torch.repeat_interleave(torch.segment_reduce(e, "sum", offsets=bounds), every)

        yield "torch, scatter", scatter
        yield "torch, segment_reduce", segments


def backward(x):
    """The gradient through softmax, of `-x`: rows of these lengths, and dense rows of 10."""
    n = lengths()
    offsets = np.concatenate([[0], np.cumsum(n)])
    probs, upstream = softmax.softmax_ragged(x, offsets, **OPTIONS), -x
    dense = len(x) // 10 * 10
    in_tens = softmax.softmax(x[:dense].reshape(-1, 10), **OPTIONS), upstream[:dense].reshape(-1, 10)
    out, dense_out = np.empty_like(x), np.empty_like(in_tens[0])
    yield "softmax", lambda: softmax.softmax_backward_ragged(probs, upstream, offsets, out=out, **OPTIONS)
    yield "softmax of dense rows", lambda: softmax.softmax_backward(*in_tens, out=dense_out, **OPTIONS)
    if torch:
        p, u = torch.from_numpy(probs), torch.from_numpy(upstream)
        rows = torch.from_numpy(np.repeat(np.arange(len(n)), n))

        def scatter():
            return p * (u - torch.zeros(len(n)).index_add(0, rows, p * u)[rows])

        yield "torch, scatter", scatter


def requests(x):
    """Requests: with masks of a bit a token that show all, or a temperature for each row."""
    out = np.empty_like(x)
    bits = np.full((len(x), -(-x.shape[1] // 32)), -1, np.int32)
    temperatures = np.random.default_rng(3).uniform(0.5, 1.5, len(x))
    yield "softmax", lambda: softmax.softmax(x, out=out, **OPTIONS)
    yield "softmax, bitmask=", lambda: softmax.softmax(x, bitmask=bits, out=out, **OPTIONS)
    yield "softmax, temperature=0.8", lambda: softmax.softmax(x, temperature=0.8, out=out, **OPTIONS)
    yield "softmax, a temperature a row", lambda: softmax.softmax(x, temperature=temperatures, out=out, **OPTIONS)


def entropies(x):
    yield "softmax", lambda: softmax.entropy(x, **OPTIONS)
    yield "softmax.logsumexp", lambda: softmax.logsumexp(x, **OPTIONS)
    if torch:
        t = torch.from_numpy(x)
        yield "torch", lambda: torch.distributions.Categorical(logits=t).entropy()


HEAD = 64


def of_attention(x, queries):
    """Queries, keys and values of one head."""
    keys = (len(x) - queries) // 2
    return x[:queries], x[queries : queries + keys], x[queries + keys :]


def attends(queries, x):
    """Causal attention of the last queries, one head."""
    q, k, v = of_attention(x, queries)
    shape, scale = (queries, len(k)), HEAD**-0.5

    def tiles(q, k, v, zeros):
        rows, cols = min(queries, 128), 1024 if queries == 1 else 256
        online = softmax.OnlineSoftmax(shape, scale=scale, causal=True)
        output = zeros((queries, HEAD))
        for row in range(0, queries, rows):
            part, some = output[row : row + rows], q[row : row + rows]
            # Later keys are hidden.
            seen = len(k) - queries + row + rows
            for key in range(0, seen, cols):
                end = min(key + cols, seen)
                scores = some @ k[key:end].T
                weights, factors = online.tile(scores, row, key, out=scores)
                part *= factors[:, None]
                part += weights @ v[key:end]
        output *= online.finish()[0][:, None]
        return output

    yield "softmax", lambda: tiles(q, k, v, partial(np.zeros, dtype=np.float32))

    def stored():
        return softmax.attention_softmax(q @ k.T, scale=scale, causal=True, **OPTIONS) @ v

    yield "softmax, scores stored", stored
    if torch:
        a, b, c = map(torch.from_numpy, (q, k, v))
        yield "softmax of tensors", lambda: tiles(a, b, c, torch.zeros)
        causal = queries > 1
        attention = torch.nn.functional.scaled_dot_product_attention
        d, e, f = (t[None, None] for t in (a, b, c))
        yield "torch", lambda: attention(d, e, f, is_causal=causal)[0, 0]


def divergences(x):
    y = x[:, ::-1].copy()
    yield "softmax", lambda: softmax.kl_divergence(x, y, **OPTIONS)
    if torch:
        t, u = torch.from_numpy(x), torch.from_numpy(y)
        log_softmax, kl_div = torch.log_softmax, torch.nn.functional.kl_div
        yield "torch", lambda: kl_div(
            log_softmax(u, -1), log_softmax(t, -1), log_target=True, reduction="none"
        ).sum(-1)


def exact(x, axis):
    return numpy_softmax(np.asarray(x).astype(np.float64), axis)


def check(name, contestant, call, x, axis):
    got = as_array(call())
    if name == "top-p draws":
        probs = exact(x, -1)
        ordered = -np.sort(-probs, -1)
        least = np.take_along_axis(ordered, (ordered.cumsum(-1) < 0.9).sum(-1)[:, None], 1)[:, 0]
        assert (probs[np.arange(len(x)), got.astype(int)] >= least * 0.999).all(), contestant
        return
    if name.startswith("attention"):
        q, k, v = of_attention(x.astype(np.float64), 1 if "decoding" in name else len(x) // 3)
        scores = q @ k.T / HEAD**0.5
        scores[np.arange(len(k)) > np.arange(len(q))[:, None] + len(k) - len(q)] = -np.inf
        assert np.abs(got - exact(scores, -1) @ v).max() < 1e-4, contestant
        return
    if name.startswith("router"):
        want = -np.sort(-exact(x, -1), -1)[:, :8]
        want /= want.sum(-1, keepdims=True)
        assert np.abs(got / want - 1).max() < 1e-5, contestant
        return
    if name.startswith("ragged"):
        n, want = lengths()[:9999], np.asarray(x).astype(np.float64)
        if "dense" in contestant:
            n = np.full(9999, 10)
        for row in np.split(np.arange(n.sum()), np.cumsum(n)[:-1]):
            if len(row):
                p, x = exact(want[row], -1), want[row]
                if "backward" in name:
                    assert np.abs(got.ravel()[row] - p * (p @ x - x)).max() < 1e-5, contestant
                else:
                    assert np.abs(got.ravel()[row] / p - 1).max() < 1e-5, contestant
        return
    if name.startswith("requests") and "temperature" in contestant:
        x = x / (0.8 if "=" in contestant else np.random.default_rng(3).uniform(0.5, 1.5, len(x))[:, None])
    if name.startswith("entropies"):
        p = exact(x, -1)
        want = -(p * np.log(p)).sum(-1)
        if "logsumexp" in contestant:
            want = np.log(np.exp(x.astype(np.float64)).sum(-1))
        assert np.abs(got / want - 1).max() < 1e-4, contestant
        return
    if name.startswith("divergences"):
        p, q = exact(x, -1), exact(x[:, ::-1], -1)
        assert np.abs(got / (p * np.log(p / q)).sum(-1) - 1).max() < 1e-4, contestant
        return
    rows = slice(None) if axis == 0 else slice(0, 4096)
    want = exact(x[rows], axis)
    if name.startswith("cross-entropy"):
        want[np.arange(len(want)), np.arange(len(want)) * 7919 % x.shape[1]] -= 1
        want /= len(x)
    # NumPy computes in bfloat16 itself, and loses as much as it has to.
    bound = (2**-7 if "numpy" not in contestant else 0.25) if x.dtype.itemsize == 2 else 1e-4
    error = np.abs(got[rows] - want).max() / np.abs(want).max()
    assert error < bound, (name, contestant, error)


def seconds(call, least):
    """Of a call; of so many that the clock can tell."""
    n = 1
    while True:
        start = time.perf_counter()
        for _ in range(n):
            call()
        taken = time.perf_counter() - start
        if taken > least:
            return taken / n
        n = max(2 * n, int(n * least / max(taken, 1e-9)))


def cases():
    big = 16 if arguments.quick else 1
    bf16 = ml_dtypes.bfloat16 if ml_dtypes else None
    yield "10", lambda: logits(1, 10)[0], softmaxes, -1
    yield "1,000,000 x 10", lambda: logits(1_000_000 // big, 10), softmaxes, -1
    yield "1,024 x 1,024", lambda: logits(1024, 1024), softmaxes, -1
    yield "131,072 x 1,024", lambda: logits(131_072 // big, 1024), softmaxes, -1
    if bf16:
        yield "131,072 x 1,024 bf16", lambda: logits(131_072 // big, 1024, bf16), softmaxes, -1
    yield "1,024 x 16,384, axis 0", lambda: logits(1024, 16_384 // big), lambda x: softmaxes(x, 0), 0
    yield "16,384 x 1,024, axis 0", lambda: logits(16_384 // big, 1024), lambda x: softmaxes(x, 0), 0
    yield "cross-entropy with gradient, 8,192 x 1,024", lambda: logits(8192, 1024), losses, -1
    yield "router, 8 of 64 experts, 65,536 tokens", lambda: logits(65_536 // big, 64), routes, -1
    yield "ragged, 10 million elements in rows of 0 to 30", lambda: logits(1, lengths().sum())[0], ragged, -1
    yield "ragged, backward", lambda: logits(1, lengths().sum())[0], backward, -1
    yield "requests, 64 x 128,256", lambda: logits(64, 128_256 // big), requests, -1
    yield "entropies, 1,024 x 1,024", lambda: logits(1024, 1024), entropies, -1
    for n in 512, 4096:
        name = f"attention by tiles, one head, {n:,} tokens"
        yield name, lambda n=n: logits(3 * n, HEAD) / 3, partial(attends, n), -1
    yield "attention by tiles, one head, decoding at 4,096", lambda: logits(8193, HEAD) / 3, partial(attends, 1), -1
    yield "divergences, 1,024 x 1,024", lambda: logits(1024, 1024), divergences, -1
    yield "top-p draws", lambda: logits(64, 32_000 if arguments.quick else 128_256), draws, -1


def main():
    print(f"{cpu()}, {THREADS} thread{'s' * (THREADS > 1)}, kernel {softmax.info()['kernel']}; ", end="")
    versions = [("numpy", np), ("torch", torch), ("jax", jax), ("scipy", optional("scipy"))]
    print(", ".join(f"{name} {module.__version__}" for name, module in versions if module))
    if MISSING:
        print("not here:", "; ".join(MISSING))
    print("\n| input | call | time | of softmax's |\n|---|---|---|---|")
    rounds = 3 if arguments.quick else 9
    for name, make, contestants, axis in cases():
        if arguments.only not in name:
            continue
        x = make()
        calls = list(contestants(x))
        for contestant, call in calls:
            check(name, contestant, call, x, axis)
        times = {contestant: [] for contestant, _ in calls}
        for _ in range(rounds):
            random.shuffle(calls)
            for contestant, call in calls:
                times[contestant].append(seconds(call, 0.001 if arguments.quick else 0.01))
        medians = {contestant: statistics.median(t) for contestant, t in times.items()}
        # The same bytes are written by both, but for where.
        own = medians["softmax"]
        for contestant, median in medians.items():
            unit, factor = ("us", 1e6) if median < 1e-3 else ("ms", 1e3)
            print(f"| {name} | {contestant} | {median * factor:.3g} {unit} | {median / own:.2f} |")
        sys.stdout.flush()
        del x, calls


if __name__ == "__main__":
    main()
