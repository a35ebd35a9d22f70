"""SciPy's own tests of softmax, log_softmax and logsumexp, from the installed package, with the
functions of softmax.special in the place of theirs."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("scipy")

# A plugin of pytest. The tests' decorators know SciPy's functions only, so that theirs are there
# until all tests are collected.
PLUGIN = """
import softmax.special

def pytest_collection_finish(session):
    for module in {item.module for item in session.items}:
        for name in ("softmax", "log_softmax", "logsumexp"):
            assert getattr(module, name).__module__ == "scipy.special._logsumexp", getattr(module, name)
            setattr(module, name, getattr(softmax.special, name))
"""

# What this library has none of; the summary has the error of each test in its line.
REFUSED = "has elements of type complex"


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scipy")
    (folder / "in_place_of_scipy.py").write_text(PLUGIN)
    environment = {**os.environ, "COLUMNS": "400", "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    arguments = ["-p", "in_place_of_scipy", "--pyargs", "scipy.special.tests.test_logsumexp", "-q", "-rfE", "--tb=no"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    ).stdout


def test_all_of_real_numbers_pass(theirs):
    failed = [line for line in theirs.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert not [line for line in failed if REFUSED not in line], theirs
    # SciPy's own functions would have passed those of complex numbers.
    assert failed, theirs
    print(theirs.splitlines()[-1])
    passed = int(theirs.splitlines()[-1].split(" passed")[0].split()[-1])
    assert passed >= 40, theirs
