"""python -m softmax."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import softmax

COMMAND = [sys.executable, "-m", "softmax"]
# Where a program finds no folder `softmax` but what is installed.
HERE = os.path.dirname(__file__)


def run(*arguments, text=True):
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=HERE, capture_output=True, text=text, check=False)


def test_it_runs_over_files(tmp_path):
    x = np.random.default_rng(1).standard_normal((50, 70)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    done = run("run", tmp_path / "x.npy", tmp_path / "y.npy")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "y.npy").tobytes() == softmax.softmax(x).tobytes()
    done = run("argmax", tmp_path / "x.npy", tmp_path / "columns.npy")
    assert (np.load(tmp_path / "columns.npy") == softmax.argmax(x)).all()


def test_its_status_and_words_are_the_command_s(tmp_path):
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"softmax {softmax.__version__}\n")
    assert "Usage: softmax <COMMAND>" in run("--help").stdout
    done = run("run", tmp_path / "none.npy", tmp_path / "y.npy")
    assert done.returncode == 2 and done.stderr.startswith("softmax: ") and "none.npy" in done.stderr
    done = run(tmp_path / "x.npy")
    assert done.returncode == 2 and "softmax run LOGITS OUT" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="there are no such signals here")
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path):
    # Gigabytes of zeros that take no space: they have never been written.
    np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float64, shape=(2**20, 2**12))
    # Programs that a shell runs in the background ignore it.
    default = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    command = [*COMMAND, "argmax", tmp_path / "x.npy", tmp_path / "y.npy"]
    child = subprocess.Popen(command, cwd=HERE, preexec_fn=default)
    time.sleep(2)
    child.send_signal(signal.SIGINT)
    child.wait(timeout=30)
    assert child.returncode == -signal.SIGINT
    assert os.listdir(tmp_path) == ["x.npy"]
