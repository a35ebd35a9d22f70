"""Losses, draws, log-probabilities beside PyTorch and the machine: medians of interleaved rounds.

    /tmp/venv/bin/python benches/peers/decisions.py [--quick] [--rounds N] [--threads 1|2] [--no-torch]

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
from compare import pointers, rust, zeros

CASES = {}
torch = None  # unless it takes part


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
    ours = rust("cross_entropy", *arguments, *pointers(x, y))
    ours()
    sample = slice(0, None, max(1, rows // 16))
    exact = np.exp(x[sample].astype(np.float64))
    exact /= exact.sum(1, keepdims=True)
    exact[np.arange(len(exact)), labels[sample]] -= 1
    if not 0 < loss.value < 100:
        raise ValueError(f"wrong: a loss of {loss.value}")
    near(y[sample] * float(rows), exact, 1e-6)
    y[:] = x
    in_place = rust("cross_entropy", *arguments, *pointers(y, y))
    z = zeros(rows, cols)
    z[:] = x
    softmax = rust("ours", ctypes.c_uint(0), ctypes.c_char_p(None), *pointers(z, z))
    contestants = {
        "ours, in place": keeping(in_place, y, labels),
        "ours": keeping(ours, x, y, labels),
        "our softmax, in place": keeping(softmax, z),
    }
    if torch:
        t, target = torch.from_numpy(x).requires_grad_(), torch.from_numpy(labels)

        def both():
            t.grad = None
            loss = torch.nn.functional.cross_entropy(t, target)
            loss.backward()
            return loss

        near(loss.value, both().item(), 1e-5)
        contestants["torch"] = both
    return contestants, [("ours, in place", "torch", ">=", 10), ("ours, in place", "our softmax, in place", ">=", 1 / 1.15)]


def read(x):
    """Reading the matrix once."""
    return keeping(rust("read", ctypes.c_size_t(x.itemsize), *pointers(x)), x)


@case
def top_p_sampling(quick):
    """A draw from each row, p = 0.9; with torch as transformers does it, by a sort."""
    rows, cols = (8, 5000) if quick else (64, 128_256)
    x, tokens = logits(rows, cols), np.zeros(rows, np.uint64)
    ours = rust("sample", ctypes.c_double(0.9), pointer(tokens), *pointers(x))

    def sorted_torch():
        probs, order = torch.sort(torch.softmax(torch.from_numpy(x), -1), descending=True)
        probs[torch.cumsum(probs, -1) - probs > 0.9] = 0
        return order.gather(-1, torch.multinomial(probs, 1))

    ours()
    # Every token must be in its row's nucleus.
    for row, token in zip(x.astype(np.float64), tokens):
        p = np.exp(row - row.max())
        before = p[row > row[int(token)]].sum() / p.sum()
        if not before < 0.9 + 1e-6:
            raise ValueError(f"wrong: token {token} has {before} of the mass before it")
    contestants = {"ours": keeping(ours, x, tokens), "read": read(x)}
    return contestants | ({"torch": sorted_torch} if torch else {}), [
        ("ours", "torch", ">=", 30),
        ("ours", "read", ">=", 1 / 2),
    ]


@case
def log_probabilities(quick):
    """Of one token of each row, in bf16."""
    rows, cols = (16, 5000) if quick else (4096, 128_256)
    x = zeros(rows, cols, dtype=np.uint16)
    rng = np.random.default_rng(0)
    for row in x:
        row[:] = (rng.standard_normal(cols, np.float32) * 3).view(np.uint32) >> 16
    tokens, got = rng.integers(cols, size=rows).astype(np.uint64), np.zeros(rows, np.float32)
    # Of torch as many rows as PyTorch's output in memory allows; its time counts for all.
    part = min(rows, 1024)
    ours = rust("log_probs", pointer(tokens), pointer(got), *pointers(x))
    of_part = rust("log_probs", pointer(tokens), pointer(got), *pointers(x[:part]))
    ours()
    sample = slice(0, None, max(1, rows // 16))
    exact = (x[sample].astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    lse = np.log(np.exp(exact).sum(1))
    near(got[sample], exact[np.arange(len(exact)), tokens[sample].astype(int)] - lse, 1e-6)
    contestants = {
        "ours": keeping(ours, x, tokens, got),
        "read": read(x),
        f"ours, {part} rows": keeping(of_part, x, tokens, got),
    }
    if torch:
        t = torch.from_numpy(x[:part].view(np.int16)).view(torch.bfloat16)
        index = torch.from_numpy(tokens[:part].astype(np.int64))[:, None]
        contestants[f"torch, {part} rows"] = lambda: torch.log_softmax(t, -1).gather(-1, index)
    return contestants, [
        (f"ours, {part} rows", f"torch, {part} rows", ">=", 6),
        ("ours", "read", ">=", 1 / 1.3),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="tiny cases: does everything run?")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, choices=[1, 2], default=1)
    parser.add_argument("--only", default="", help="cases whose name has it")
    parser.add_argument("--no-torch", action="store_true", help="without PyTorch, which is large to install")
    args = parser.parse_args()
    if not args.no_torch:
        global torch
        import torch

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
            if other not in median:
                continue
            result = median[other] / median[of]
            met = "yes" if result >= factor else "no"
            print(f"| {name} | {of} | | >= {factor:.2f} x {other} | {result:.2f} | {met} |")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
