"""Losses, draws and log-probabilities beside PyTorch and the machine's limits: interleaved rounds in one process, medians.

    /tmp/venv/bin/python benches/peers/decisions.py [--quick] [--rounds N] [--threads 1|2]

Needs what compare.py needs, of which it uses the buffers and the library of peers. Answers are checked before they are timed; the
exit code is 1 if one is wrong. A missed target is only printed.
"""

import argparse
import ctypes
import random
import statistics
import sys
import time

import numpy as np
import torch
from compare import pointers, rust, zeros

CASES = {}


def case(function):
    CASES[function.__name__.replace("_", " ")] = function
    return function


def pointer(values):
    return ctypes.c_void_p(values.ctypes.data)


def logits(rows, cols, scale=3):
    x = zeros(rows, cols)
    np.random.default_rng(0).standard_normal(out=x, dtype=np.float32)
    x *= scale
    return x


def keeping(run, *values):
    """`run`, by which the values stay alive of which it has only the addresses."""
    return lambda: (run(), values)[0]


def near(got, want, relative):
    if not np.allclose(got, want, rtol=relative, atol=0):
        raise ValueError(f"wrong: {got} instead of {want}")


@case
def cross_entropy(quick):
    """Forward and backward."""
    rows, cols = (64, 1000) if quick else (4096, 32_000)
    x, y = logits(rows, cols), zeros(rows, cols)
    labels = np.random.default_rng(1).integers(cols, size=rows)
    loss = ctypes.c_double()
    arguments = pointer(labels), ctypes.byref(loss)
    t, target = torch.from_numpy(x).requires_grad_(), torch.from_numpy(labels)

    def torch_both():
        t.grad = None
        loss = torch.nn.functional.cross_entropy(t, target)
        loss.backward()
        return loss

    ours = rust("cross_entropy", *arguments, *pointers(x, y))
    ours()
    want = torch_both().item()
    near(loss.value, want, 1e-5)
    sample = slice(0, None, max(1, rows // 16))
    exact = np.exp(x[sample].astype(np.float64))
    exact /= exact.sum(1, keepdims=True)
    exact[np.arange(len(exact)), labels[sample]] -= 1
    near(y[sample] * float(rows), exact, 1e-6)
    y[:] = x
    in_place = rust("cross_entropy", *arguments, *pointers(y, y))
    z = zeros(rows, cols)
    z[:] = x
    softmax = rust("ours", ctypes.c_uint(0), ctypes.c_char_p(None), *pointers(z, z))
    return {
        "ours, in place": keeping(in_place, y, labels),
        "ours": keeping(ours, x, y, labels),
        "our softmax, in place": keeping(softmax, z),
        "torch": torch_both,
    }, [("ours, in place", "torch", ">=", 10), ("ours, in place", "our softmax, in place", ">=", 1 / 1.15)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="tiny cases: does everything run?")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, choices=[1, 2], default=1)
    parser.add_argument("--only", default="", help="cases whose name has it")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rust("start", ctypes.c_size_t(args.threads))()
    rounds = args.rounds or (3 if args.quick else 15)
    wrong = False
    print("| case | contestant | ms | target | result | met |\n|---|---|---|---|---|---|")
    for name, make in CASES.items():
        if args.only not in name:
            continue
        try:
            contestants, targets = make(args.quick)
        except ValueError as error:
            print(f"| {name} | ERROR: {error} | | | | |")
            wrong = True
            continue
        times = {contestant: [] for contestant in contestants}
        order = list(contestants)
        for _ in range(rounds):
            random.shuffle(order)
            for contestant in order:
                start = time.perf_counter()
                contestants[contestant]()
                times[contestant].append(time.perf_counter() - start)
        median = {contestant: statistics.median(t) for contestant, t in times.items()}
        for contestant, seconds in median.items():
            print(f"| {name} | {contestant} | {seconds * 1e3:.2f} | | | |")
        for of, other, _, factor in targets:
            result = median[other] / median[of]
            met = "yes" if result >= factor else "no"
            print(f"| {name} | {of} | | >= {factor:.2f} x {other} | {result:.2f} | {met} |")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
