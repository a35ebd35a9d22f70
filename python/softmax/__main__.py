"""python -m softmax: the command `softmax`, which is a program of its own.

A wheel built by maturin has a module or programs, not both; the command is installed by cargo.
"""

import os
import shutil
import sys


def main():
    command = os.environ.get("SOFTMAX_COMMAND") or shutil.which("softmax")
    if command is None:
        sys.exit(
            "softmax: the command is not installed, and no part of the Python package.\n"
            "From the project's folder: cargo install --path cli"
        )
    # Its own exit status and signals; nothing of Python is left to be in their way.
    os.execv(command, ["softmax", *sys.argv[1:]])


if __name__ == "__main__":
    main()
