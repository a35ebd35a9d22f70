"""This library beside ONNX Runtime, f32 on one thread: interleaved rounds in one process, medians.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install numpy onnx onnxruntime
    cargo build --release --manifest-path benches/peers/Cargo.toml
    taskset -c 0 /tmp/venv/bin/python benches/peers/compare.py [--rounds N] [ROWSxCOLS ...]

Both read and write the same kind of 64-byte aligned buffers, and both are checked against f64 before
they are timed. Prints G elements/s, the ratio, and the largest error in ULP.
"""

import argparse
import ctypes
import os
import pathlib
import time

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

LIB = pathlib.Path(__file__).parent / "target/release/libsoftmax_peers.so"
SHAPES = ["1024x1024", "256x4096", "64x32000", "4096x64", "128x1024"]


def aligned(rows, cols):
    """An uninitialised f32 matrix that starts at a multiple of 64 bytes."""
    size = rows * cols * 4
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(np.float32).reshape(rows, cols)


def onnx_runtime(x, y):
    shape = list(x.shape)
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"], axis=-1)],
        "softmax",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, shape, y.ctypes.data)
    return lambda: session.run_with_iobinding(binding)


def this_library(x, y):
    function = ctypes.CDLL(str(LIB)).softmax_peers_f32
    arguments = (
        ctypes.c_void_p(x.ctypes.data),
        ctypes.c_void_p(y.ctypes.data),
        ctypes.c_size_t(x.shape[0]),
        ctypes.c_size_t(x.shape[1]),
    )

    def run():
        assert function(*arguments) == 0

    return run


def ulps(y, exact):
    return float(np.max(np.abs(y - exact) / np.spacing(exact.astype(np.float32)).astype(np.float64)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("shapes", nargs="*", default=SHAPES)
    args = parser.parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {args.rounds} interleaved rounds, medians")
    for shape in args.shapes:
        rows, cols = map(int, shape.split("x"))
        x, ours, theirs = (aligned(rows, cols) for _ in range(3))
        x[:] = np.random.default_rng(0).normal(0, 4, (rows, cols))
        exact = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
        exact /= exact.sum(axis=1, keepdims=True)
        runs = [this_library(x, ours), onnx_runtime(x, theirs)]
        for run in runs:
            run()
        errors = [ulps(ours, exact), ulps(theirs, exact)]
        assert errors[0] <= 3 and errors[1] <= 1000, errors
        times = [[], []]
        for _ in range(args.rounds):
            for run, seen in zip(runs, times):
                start = time.perf_counter()
                run()
                seen.append(time.perf_counter() - start)
        speed = [rows * cols / np.median(t) / 1e9 for t in times]
        print(
            f"{shape}: softmax {speed[0]:.2f} G/s ({errors[0]:.2f} ULP), onnxruntime {speed[1]:.2f} G/s "
            f"({errors[1]:.1f} ULP), ratio {speed[0] / speed[1]:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
