"""Softmax of NumPy arrays: values, layouts, types, arguments."""

import os
import subprocess
import sys

import exact
import numpy as np
import pytest

import softmax

AXES = [0, 1, 2, -1, -2, -3, None, (0, 1), (1, 2), (0, 2), (2, 0), (-1, 0), (0, 1, 2)]


def test_the_example_of_the_readme():
    probs = softmax.softmax(np.array([8.0, 5.0, 0.0]))
    assert probs.round(4).tolist() == [0.9523, 0.0474, 0.0003]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, exact.BF16])
@pytest.mark.parametrize("axis", AXES)
def test_every_axis(dtype, axis):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal((5, 6, 7)) * 3).astype(dtype)
    y = softmax.softmax(x, axis=axis)
    assert y.dtype == dtype and y.shape == x.shape
    assert exact.ulps(y, exact.softmax(x, axis)) <= exact.BOUND[y.dtype.name]


def test_the_modules_within_are_there_at_once():
    code = "import softmax; print(softmax.special.expit(0.0)); softmax.nothing"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=os.path.dirname(__file__), capture_output=True, text=True, check=False
    )
    assert done.stdout == "0.5\n" and "module 'softmax' has no attribute 'nothing'" in done.stderr
