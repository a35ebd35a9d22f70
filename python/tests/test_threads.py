"""Threads, processes and signals."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import softmax

# Where a program finds no folder `softmax` but what is installed.
HERE = os.path.dirname(__file__)

X = np.random.default_rng(9).standard_normal((512, 1000)).astype(np.float32)


def digest(_=None):
    return softmax.softmax(X).tobytes() + softmax.logsumexp(X, 0).tobytes()


def test_bits_do_not_depend_on_threads_or_kernels():
    want = digest()
    for kernel in softmax.kernels():
        for threads in [1, 2, 5]:
            assert softmax.softmax(X, kernel=kernel, threads=threads).tobytes() == want[: X.nbytes]


def test_several_python_threads_at_once():
    want = digest()
    with ThreadPoolExecutor(8) as pool:
        assert all(got == want for got in pool.map(digest, range(40)))


def test_other_threads_run_meanwhile():
    x = np.zeros((1 << 14, 1 << 11), np.float32)
    softmax.softmax(x, threads=1, out=x)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.0005)

    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.05)
    start = time.perf_counter()
    for _ in range(20):
        softmax.softmax(x, threads=1, out=x)
    end = time.perf_counter()
    stop.set()
    thread.join()
    # If the lock were kept, there would be one between two calls at most.
    assert sum(start < t < end for t in ticks) > 40


def test_a_fork_after_use_works():
    want = digest()
    softmax.softmax(np.zeros((1 << 12, 1 << 12), np.float32), threads=2)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(digest, range(6)).get(timeout=60) == [want] * 6


# Calls of many parts, each after one of a single part: prints how many times as long they took
# until Ctrl-C ended them. Pages of zeros that are only read take no memory.
INTERRUPTED = """
import numpy as np, softmax, os, signal, threading, time
# Programs that a shell runs in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
PARTS, ROWS, COLS = 12, 1 << 13, 1 << 12
X = np.zeros((PARTS, ROWS, COLS), np.float16)
TOKENS = np.zeros((PARTS, ROWS), np.int64)
O = dict(kernel="portable", threads=1)
S = softmax
CALLS = {
    "softmax": lambda x, t: S.softmax(x, **O),
    "softmax, in place": lambda x, t: S.softmax(np.zeros_like(x), out=x, **O),
    "softmax, axis 1": lambda x, t: S.softmax(x, 1, **O),
    "softmax, axes 0 and 2": lambda x, t: S.softmax(x, (0, 2), **O),
    "log_softmax": lambda x, t: S.log_softmax(x, **O),
    "sigmoid": lambda x, t: S.sigmoid(x.reshape(-1), **O),
    "hardmax": lambda x, t: S.hardmax(x, **O),
    "softmax_backward": lambda x, t: S.softmax_backward(x, x, **O),
    "entropy_backward": lambda x, t: S.entropy_backward(x, x[..., 0], **O),
    "kl_divergence_backward": lambda x, t: S.kl_divergence_backward(x, x, x[..., 0], **O),
    "logsumexp": lambda x, t: S.logsumexp(x, **O),
    "logsumexp, axis 1": lambda x, t: S.logsumexp(x, 1, **O),
    "argmax": lambda x, t: S.argmax(x, **O),
    "argmax, axis 1": lambda x, t: S.argmax(x, 1, **O),
    "route": lambda x, t: S.route(x, 2, scoring="sigmoid", renormalize=True, **O),
    "top_k": lambda x, t: S.top_k(x, 2, **O),
    "top_k, axis 1": lambda x, t: S.top_k(x, 2, 1, **O),
    "top_k of logits": lambda x, t: S.top_k(x, 2, values="logits", **O),
    "log_probs": lambda x, t: S.log_probs(x, t, **O),
    "attention_softmax": lambda x, t: S.attention_softmax(x, **O),
    "attention_softmax, one head": lambda x, t: S.attention_softmax(x.reshape(1, -1, COLS), causal=True, offset=COLS, **O),
    "cross_entropy": lambda x, t: S.cross_entropy(x, t, axis=-1, **O),
    "cross_entropy_with_grad": lambda x, t: S.cross_entropy_with_grad(x, t, axis=-1, **O),
    "cross_entropy, axis 1": lambda x, t: S.cross_entropy_with_grad(x, t[:, :COLS], **O),
    "Sampler": lambda x, t: S.Sampler(top_p=0.9, **O).sample(x),
    "SpeculativeSampler": lambda x, t: S.SpeculativeSampler(**O).verify(
        x.reshape(-1, 1, x.shape[-1]), np.zeros((x.size // x.shape[-1], 0), int)
    ),
}
for name, call in CALLS.items():
    start = time.perf_counter()
    call(X[:1], TOKENS[:1])
    one = time.perf_counter() - start
    timer = threading.Timer(one / 2, os.kill, (os.getpid(), signal.SIGINT))
    start = time.perf_counter()
    try:
        timer.start()
        call(X, TOKENS)
        timer.join()
    except KeyboardInterrupt:
        pass
    print(name, (time.perf_counter() - start) / one, sep=": ", flush=True)
"""


def test_ctrl_c_ends_long_calls():
    # Python itself cannot end a call; what is seen is seen between its parts.
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=HERE, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    took = {name: float(time) for name, time in (line.split(": ") for line in done.stdout.splitlines())}
    assert len(took) == 26
    # Of 12 parts.
    assert {name: time for name, time in took.items() if time > 6} == {}


def patterned(*shape):
    """Numbers that no two rows share, made faster than random ones."""
    tile = np.random.default_rng(3).standard_normal(10_007).astype(np.float16)
    return np.resize(tile, shape)


def test_parts_of_long_calls_change_nothing():
    x = patterned(9, 4096, 1030)
    labels = np.arange(9 * 4096).reshape(9, 4096) % 1000
    for f in [softmax.softmax, softmax.logsumexp, softmax.argmax, lambda x, axis: softmax.top_k(x, 3, axis)[1]]:
        for axis in [-1, 1]:
            assert (f(x, axis=axis)[6:] == f(x[6:], axis=axis)).all()
    assert (softmax.log_probs(x, labels)[6:] == softmax.log_probs(x[6:], labels[6:])).all()
    factors = np.arange(9.0 * 1030)
    for images in [x, x[:, ::2][:, ::-1]]:
        target = labels[:, :1030] % images.shape[1]
        options = {"reduction": "none", "label_smoothing": 0.1}
        loss, gradient = softmax.cross_entropy_with_grad(images, target, row_factors=factors, **options)
        some = softmax.cross_entropy_with_grad(images[6:], target[6:], row_factors=factors[6 * 1030 :], **options)
        assert (loss[6:] == some[0]).all() and (gradient[6:] == some[1]).all()


def test_parts_of_long_gradients_change_nothing():
    x = patterned((1 << 15) + 500, 1030)
    y, upstream, seen = x[::-1], x[:, 0].copy(), x > -2
    end = slice(-700, None)
    each = np.linspace(0.1, 2, len(x))
    got = softmax.entropy_backward(x, upstream, mask=seen, temperature=each)
    some = softmax.entropy_backward(x[end], upstream[end], mask=seen[end], temperature=each[end])
    assert got[end].tobytes() == some.tobytes()
    pair = softmax.kl_divergence_backward(x, y, upstream, mask=seen)
    some = softmax.kl_divergence_backward(x[end], y[end], upstream[end], mask=seen[end])
    assert all(a[end].tobytes() == b.tobytes() for a, b in zip(pair, some))


@pytest.mark.parametrize("shape", [(5, 2, 1024, 4096), (2, 5, 2048, 4096), (1, 2, 4100, 8200)])
def test_parts_of_attention_change_nothing(shape):
    batch, heads, queries, keys = shape
    x = patterned(*shape)
    slopes, sinks = np.arange(1.0, heads + 1) / 64, np.arange(heads) / 2.0
    of_row = (np.arange(batch * heads * queries) * 7919 % keys + 1).reshape(batch, heads, queries)
    of_sequence = np.arange(keys - batch, keys)
    mask = patterned(batch, 1, queries, keys) > -1.5
    wide = patterned(heads, 1, keys)
    for options in [
        {"causal": True, "alibi": slopes, "sinks": sinks, "lse": True},
        {"lengths": of_row.reshape(-1), "mask": mask, "lse": True},
        {"causal": True, "offset": 3, "window": 99, "lengths": of_sequence, "mask": wide, "mask_slopes": slopes},
    ]:
        whole = softmax.attention_softmax(x, **options)
        again = x.copy()
        softmax.attention_softmax(again, out=again, **options)
        assert again.tobytes() == (whole[0] if "lse" in options else whole).tobytes()
        for b, h, q in [(0, 0, 0), (batch - 1, heads - 1, queries - 9), (batch - 1, 0, queries // 2), (0, heads - 1, 9)]:
            part = {**options, "offset": options.get("offset", keys - queries) + q}
            part |= {name: part[name][h : h + 1] for name in ["alibi", "sinks", "mask_slopes"] if name in part}
            if "lengths" in part:
                each = part["lengths"] is of_sequence
                part["lengths"] = of_sequence[b : b + 1] if each else of_row[b, h, q : q + 9]
            if "mask" in part:
                part["mask"] = wide[h] if part["mask"] is wide else mask[b, 0, q : q + 9]
            got = softmax.attention_softmax(x[b, h, q : q + 9], **part)
            if "lse" in options:
                assert (got[0] == whole[0][b, h, q : q + 9]).all() and (got[1] == whole[1][b, h, q : q + 9]).all()
            else:
                assert (got == whole[b, h, q : q + 9]).all()


def test_the_import_is_quick_and_brings_neither_numpy_nor_torch():
    code = "import sys, softmax; print([m for m in ('numpy', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
    code = "import time; t = time.perf_counter(); import softmax; print(time.perf_counter() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True).stdout)
        for _ in range(9)
    ]
    assert min(runs) < 0.020, runs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_signals_of_others_reach_python():
    seen = []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(1))
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        softmax.softmax(X)
        assert seen == [1]
    finally:
        signal.signal(signal.SIGUSR1, before)
