"""python -m softmax."""

import os
import subprocess
import sys


def run(*arguments, **environment):
    command = [sys.executable, "-m", "softmax", *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(
        command, cwd=os.path.dirname(__file__), env=environment, capture_output=True, text=True, check=False
    )


def test_it_is_the_command(tmp_path):
    other = tmp_path / "softmax"
    other.write_text('#!/bin/sh\necho "$@"\nexit 3\n')
    other.chmod(0o755)
    done = run("run", "a b", SOFTMAX_COMMAND=str(other))
    assert (done.stdout, done.returncode) == ("run a b\n", 3)
    done = run("info", SOFTMAX_COMMAND="", PATH=str(tmp_path))
    assert (done.stdout, done.returncode) == ("info\n", 3)


def test_it_tells_how_to_install_what_is_missing(tmp_path):
    done = run(SOFTMAX_COMMAND="", PATH=str(tmp_path))
    assert done.returncode == 1 and "cargo install --path cli" in done.stderr
