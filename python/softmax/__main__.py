"""python -m softmax: the command `softmax`."""

import signal
import sys

from softmax import _softmax


def main():
    if not hasattr(_softmax, "_command"):
        sys.exit("softmax: this module was built without its feature `command`")
    # As in a program of its own: Ctrl-C ends it, unless whoever started it wants it ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(_softmax._command(["softmax", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
