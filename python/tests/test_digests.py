"""The same bits as the Rust crate: the digests that its own tests compare
(measure/src/digests.txt), by every kernel, on one thread and on two; and the same bytes as the command."""

import functools
import os
import subprocess
from pathlib import Path

import exact
import numpy as np
import pytest

import softmax

DIGESTS = Path(__file__).parents[2] / "measure" / "src" / "digests.txt"
# Digests of larger results take Python minutes.
MOST = 1 << 16


@functools.cache
def logits(n):
    """`softmax_measure::data::logits`, in f64: sums of four numbers of Knuth's MMIX generator."""
    a, c, mask = 6364136223846793005, 1442695040888963407, (1 << 64) - 1
    states = np.empty(4 * n, np.uint64)
    block, state = min(1024, 4 * n), 1
    jump, add = 1, 0
    for i in range(block):
        state = (state * a + c) & mask
        states[i] = state
        jump, add = jump * a & mask, (add * a + c) & mask
    for i in range(block, 4 * n, block):
        states[i : i + block] = states[i - block : i] * np.uint64(jump) + np.uint64(add)
    uniform = (states >> np.uint64(40)).astype(np.float64) / (1 << 24)
    return (uniform.reshape(n, 4).sum(1) - 2.0) * np.sqrt(27.0)


def typed(x, dtype):
    """As `Element::from_f64`: half types by way of f32."""
    if dtype == "f64":
        return x
    return x.astype(np.float32).astype({"f16": np.float16, "bf16": exact.BF16, "f32": np.float32}[dtype])


@functools.cache
def fnv(data):
    """FNV-1a over the bytes."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def words(x):
    """The bits of numbers, eight bytes each."""
    x = np.ascontiguousarray(x)
    return x.view(f"u{x.itemsize}").astype("<u8").tobytes()


def result(operation, x, **options):
    if operation == "logsumexp":
        return words(softmax.logsumexp(x, **options))
    if operation == "cross_entropy":
        labels = np.arange(len(x)) * 7919 % x.shape[1]
        losses, gradient = softmax.cross_entropy_with_grad(x, labels, reduction="none", **options)
        return words(gradient) + words(losses)
    if operation == "attention":
        return words(softmax.attention_softmax(x, causal=True, **options))
    if operation == "sample":
        return words(softmax.Sampler(7, **options).sample(x))
    return words(getattr(softmax, operation)(x, **options))


def cases():
    for line in DIGESTS.read_text().splitlines():
        what, digest = line.split(": ")
        operation, dtype, rows, _, cols = what.split()
        if int(rows) * int(cols) <= MOST:
            yield pytest.param(operation, dtype, int(rows), int(cols), int(digest, 16), id=what)


def test_there_are_digests_of_all_operations_and_types():
    seen = {tuple(case.values[:2]) for case in cases()}
    operations = ["softmax", "log_softmax", "logsumexp", "cross_entropy", "attention", "sample"]
    assert seen == {(o, t) for o in operations for t in ("f16", "bf16", "f32", "f64")}


@pytest.mark.parametrize(("operation", "dtype", "rows", "cols", "digest"), list(cases()))
def test_digest(operation, dtype, rows, cols, digest):
    x = typed(logits(rows * cols), dtype).reshape(rows, cols)
    for kernel in softmax.kernels():
        for threads in [1, 2]:
            assert fnv(result(operation, x, kernel=kernel, threads=threads)) == digest, (kernel, threads)
    if operation == "softmax":
        # Along the other axis, from and into every other column.
        wide = np.zeros((cols, 2 * rows), x.dtype)
        wide[:, ::2] = x.T
        y = softmax.softmax(wide[:, ::2], axis=0)
        assert fnv(words(y.T)) == digest


@pytest.mark.skipif("SOFTMAX_COMMAND" not in os.environ, reason="SOFTMAX_COMMAND names no command")
def test_bytes_of_the_command(tmp_path):
    command = os.environ["SOFTMAX_COMMAND"]
    x = typed(logits(64 * 1000), "f32").reshape(64, 1000)
    np.save(tmp_path / "x.npy", x)
    for name, options in {
        "softmax": [],
        "log_softmax": ["--log"],
        "sigmoid": ["--op", "sigmoid"],
    }.items():
        for kernel in softmax.kernels():
            for threads in [1, 2]:
                run = [command, "run", "x.npy", "y.npy", "--force", "--threads", str(threads), *options]
                environment = {**os.environ, "SOFTMAX_KERNEL": kernel}
                subprocess.run(run, cwd=tmp_path, env=environment, check=True, capture_output=True)
                want = np.load(tmp_path / "y.npy")
                got = getattr(softmax, name)(x, kernel=kernel, threads=threads)
                assert got.tobytes() == want.tobytes(), (name, kernel, threads)
