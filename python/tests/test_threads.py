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


INTERRUPTED = """
import numpy as np, softmax, os, signal, threading, time
# Programs that a shell runs in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
x = np.zeros((1 << 16, 1 << 12), np.float32)
def press():
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
try:
    softmax.softmax(x, out=x, kernel="scalar", threads=1)
except KeyboardInterrupt:
    print((x[:, 0] > 0).mean())
"""


def test_ctrl_c_ends_a_long_call():
    # A call takes seconds in the scalar reference; it is one, so Python itself cannot end it.
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], cwd=HERE, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) < 0.9, "it ran to its end"


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
