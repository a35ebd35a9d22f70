"""Calls in processes that are forked after a call on several threads: fork.py libsoftmax.so"""

import ctypes
import multiprocessing
import sys
import threading
from ctypes import POINTER, byref, c_double, c_size_t, c_uint32, c_void_p

ROWS, COLS = 300, 1000
THREADS_EXACT = 2


class Matrix(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("data", c_void_p), ("dtype", c_uint32), ("rows", c_size_t), ("cols", c_size_t), ("stride", c_size_t)]


class Options(ctypes.Structure):
    _fields_ = [
        ("size", c_size_t), ("scale", c_double), ("temperature", c_double), ("flags", c_uint32), ("kernel", c_void_p), ("threads", c_size_t),
        ("parallel", c_void_p), ("scratch", c_void_p), ("scratch_size", c_size_t), ("cache_core", c_size_t), ("cache_last", c_size_t),
        ("message", c_void_p), ("message_size", c_size_t),
    ]


library = ctypes.CDLL(sys.argv[1])
library.softmax_softmax.argtypes = [POINTER(Matrix), POINTER(Matrix), POINTER(Options)]
logits = (ctypes.c_float * (ROWS * COLS))(*(i % 640 / 64 for i in range(ROWS * COLS)))


def softmax(threads):
    """The bytes of the softmax of the logits."""
    result = (ctypes.c_float * len(logits))()
    matrix = lambda data: Matrix(ctypes.sizeof(Matrix), ctypes.addressof(data), 0, ROWS, COLS, COLS)
    options = Options(size=ctypes.sizeof(Options), scale=1, temperature=1, threads=threads, flags=THREADS_EXACT if threads > 1 else 0)
    status = library.softmax_softmax(byref(matrix(logits)), byref(matrix(result)), byref(options))
    return (status, bytes(result))


def main():
    wanted = (0, bytes(softmax(1)[1]))
    assert softmax(2) == wanted
    stop = threading.Event()

    def call():
        while not stop.is_set():
            softmax(2)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for caller in callers:
        caller.start()
    try:
        with multiprocessing.get_context("fork").Pool(3) as pool:
            results = pool.map_async(softmax, [2, 0, 1, 2, 2, 0]).get(timeout=120)
    finally:
        stop.set()
    for caller in callers:
        caller.join()
    assert all(result == wanted for result in results), [status for status, _ in results]
    print("six calls in three forked processes: the same bytes")


main()
