"""This library beside its peers and the machine's limits: medians of interleaved rounds.

    python3 -m venv /tmp/venv
    /tmp/venv/bin/pip install numpy onnx onnxruntime torch scipy openvino jax
    apt-get install libxnnpack-dev
    cargo build --release --manifest-path benches/peers/Cargo.toml
    /tmp/venv/bin/python benches/peers/compare.py [--quick] [--only SUBSTRING] [--json FILE]

Prints a table of results beside targets, one of every peer's speed, and one of kinds of buffers; takes
a quarter of an hour. The exit code is 1 if an answer is wrong or something could not run; a missed
target is only printed. Needs Linux and two CPUs. Peers that are not installed must be named in
--no-peers; but jax and xnnpack may be absent, which is printed.

An earlier commit of this library is a peer, too, as a shared library:

    git worktree add /tmp/before COMMIT
    (cd /tmp/before && cargo build --release -p softmax-capi)
    /tmp/venv/bin/python benches/peers/compare.py --before /tmp/before/target/release/libsoftmax_capi.so

It has a table of its own. Both are called by the C ABI there, so that the ratio is that of the commits
alone. The ratio of two libraries of the same commit is noise.

How: one child process (`--threads 1`, pinned to one CPU) and then another (`--threads 2`) time every
contestant once per round, in an order shuffled anew for each round. All read the same x; all write the
same y, except those that allocate their output, as they are usually called: candle, scipy,
jax and "torch, allocating". (candle and jax read a copy of x of their own.) Of several calls under
one name the fastest counts. Buffers are ordinary 4 KiB pages, but for the table of buffers
(`--only buffers`). Up to 64 MiB a timing follows an untimed call of the same contestant, so that each
finds the buffers in the caches as it left them. Before timing, results are checked against f64, those
of f64 against long double. A peer's rounds take no more than 3 seconds, but are 3 at least.

Threads must be idle while others are timed: OpenMP waits passively, and ONNX Runtime and XNNPACK do not
spin (ONNX Runtime was not slower for it with two threads). A millisecond's sleep before each timing with
two threads lets the other threads go to sleep. Rust peers without threads of their own (all but candle)
get equal parts of the rows on rayon's.

jax stands for YNNPACK as well: XLA has it compute the maxima, the exponentials and their sums.

Causal attention and other axes than the last are timed beside those peers that know tensors. For a causal
softmax these need a mask, and a sweep before theirs that applies it.
"""

import argparse
import contextlib
import ctypes
import ctypes.util
import dataclasses
import functools
import gc
import importlib.metadata
import importlib.util
import io
import json
import math
import mmap
import operator
import os
import pathlib
import platform
import random
import subprocess
import sys
import time
import tomllib

import numpy as np

HERE = pathlib.Path(__file__).parent
# Of the cargo workspace whose member this folder is.
WORKSPACE = HERE / "../../examples/engines"
PYTHON_PEERS = ["torch", "onnxruntime", "scipy", "openvino"]
OPTIONAL_PEERS = {"jax": "pip install jax", "xnnpack": "apt-get install libxnnpack-dev"}
RUST_PEERS = ["rten-vecmath", "candle-nn", "ndarray", "tract-linalg"]
PEERS = [*PYTHON_PEERS, *OPTIONAL_PEERS, *RUST_PEERS]
TENSOR_PEERS = ["torch", "onnxruntime"]  # for cases with more than rows
ALLOCATING = "torch, allocating"
LARGE = 64 << 20  # least bytes of a tensor of which caches keep nothing between calls
PEER_SECONDS = 3  # for a peer in a case; but at least 3 rounds
LATENCY_CALLS = 2000
NT, MEMCPY, SCALE, BEST = "NT copy", "memcpy", "scale", "best peer"
PREALLOCATED = "best peer preallocated"
MASK, UNMASKED, LAST = "ours, mask matrix", "ours, unmasked", "ours, last axis"
F32, AVX512, RTEN_TIME = "f32", "AVX-512", "rten-vecmath's time"
OURS_C, BEFORE = "ours, C ABI", "before"
LIMITS = [NT, MEMCPY, SCALE]


@dataclasses.dataclass
class Case:
    """A tensor, and its targets for 1 and 2 threads: (relation, factor, relative to what)."""

    shape: tuple
    one: list = ()
    two: list = ()
    kind: str = ""

    def __post_init__(self):
        self.name = " x ".join(f"{n:,}" for n in self.shape) + (f", {self.kind}" if self.kind else "")

    @property
    def axis(self):
        return int(self.kind[-1]) if self.kind.startswith("axis") else len(self.shape) - 1

    def sample(self):
        """The indices of some rows (along any axis), the last among them."""
        others = [*self.shape]
        cols = others.pop(self.axis)
        rows = math.prod(others)
        sample = np.random.default_rng(0).integers(rows, size=max(1, min(rows, (1 << 22) // cols)))
        sample[-1] = rows - 1
        return np.unravel_index(sample, others)

    def rows(self, values, sample):
        return wide(np.moveaxis(values, self.axis, -1)[sample])

    @functools.cached_property
    def masks(self):
        """The hidden keys of a causal softmax of all heads, and the mask to add for that."""
        hidden = np.triu(np.ones(self.shape[1:], bool), 1)
        added = zeros(*hidden.shape)
        added[hidden] = -np.inf
        return hidden, added

    def tiny(self):
        if len(self.shape) == 3:
            shape = (4, 250, 250)
        else:
            cols = min(self.shape[1], 1 << 17)
            shape = (max(1, min(self.shape[0], (1 << 18) // cols)), cols)
        tiny = dataclasses.replace(self, shape=shape)
        if math.prod(shape) < math.prod(self.shape):
            tiny.name = f"{self.name} (as {' x '.join(f'{n:,}' for n in shape)})"
        return tiny


BEATS_MEMCPY = (">", 1, MEMCPY)
HALF, HALF_CACHED = [(">=", 1.6, F32)], [(">=", 1.5, F32)]
CACHED, STREAMED = [(">=", 0.75, AVX512)], [(">=", 0.95, AVX512)]
TENSOR = [(">=", 8, ALLOCATING), (">=", 2, PREALLOCATED)]
BF16_AS_CALLED, F64 = [(">=", 8, ALLOCATING)], [(">=", 2, BEST)]
CAUSAL, AXIS = TENSOR + [(">=", 1, UNMASKED)], TENSOR + [(">=", 0.7, LAST)]
CASES = [
    Case((131_072, 1024), [(">=", 0.88, NT), BEATS_MEMCPY], [(">=", 0.92, NT), BEATS_MEMCPY]),
    Case((32_768, 4096), [(">=", 0.75, NT), BEATS_MEMCPY], [(">=", 0.85, NT), BEATS_MEMCPY]),
    Case((1024, 131_072), [(">=", 0.75, NT), BEATS_MEMCPY], [(">=", 0.85, NT), BEATS_MEMCPY]),
    Case((12_000_000, 10), [(">=", 0.50, NT)], [(">=", 0.80, NT)]),
    Case((1_000_000, 100)),
    Case((1, 33_554_432), [(">=", 1.6, BEST)], [(">=", 2, BEST)]),
    Case((131_072, 1024), [(">=", 0.85, SCALE)], [(">=", 0.9, SCALE)], kind="in place"),
    Case((1_000_000, 10), [(">=", 3.5, BEST)]),
    Case((65_536, 16), [(">=", 3.2, BEST)]),
    Case((4096, 64), [(">=", 1.7, BEST)]),
    Case((1024, 1024), [(">=", 1.25, BEST)]),
    Case((1024, 4096), [(">=", 1.25, BEST)]),
    Case((64, 32_000), [(">=", 1.25, BEST)]),
    Case((1, 128_256), [(">=", 1.1, BEST)], [(">=", 1.4, BEST)]),
    Case((32, 128_256), [(">=", 1.25, BEST)]),
    Case((1, 16), [("<=", 1.1, RTEN_TIME)], kind="one call"),
    Case((1, 64), [("<=", 1.0, RTEN_TIME)], kind="one call"),
    Case((1024, 1024), HALF_CACHED, kind="f16"),
    Case((1024, 1024), HALF_CACHED, kind="bf16"),
    Case((131_072, 1024), HALF, HALF, kind="f16"),
    Case((131_072, 1024), HALF, HALF, kind="bf16"),
    Case((1024, 128_256), BF16_AS_CALLED, kind="bf16"),
    Case((1024, 1024), F64, kind="f64"),
    Case((1024, 1024), CACHED, CACHED, kind="AVX2 kernel forced"),
    Case((131_072, 1024), STREAMED, STREAMED, kind="AVX2 kernel forced"),
    Case((32, 2048, 2048), CAUSAL, CAUSAL, kind="causal"),
    Case((64, 1024, 1024), AXIS, AXIS, kind="axis 0"),
    Case((64, 1024, 1024), AXIS, AXIS, kind="axis 1"),
]


def mapped(size, start=0, pages=mmap.MADV_NOHUGEPAGE):
    """Bytes from mmap, at an offset from the start of a page."""
    memory = mmap.mmap(-1, start + size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(pages)
    return np.frombuffer(memory, np.uint8, size, start)


# Ways to get a buffer. NumPy uses malloc's, and asks for huge pages.
BUFFERS = {
    "buffers from malloc, by np.empty": lambda size: np.empty(size, np.uint8),
    "buffers from mmap, 4 KiB pages": mapped,
    "buffers from mmap, huge pages": lambda size: mapped(size, pages=mmap.MADV_HUGEPAGE),
    "buffers aligned to 64, not to a page": lambda size: mapped(size, 64),
    "buffers aligned to 16, 48 behind a line": lambda size: mapped(size, 48),
}
CASES += [Case((131_072, 1024), kind=kind) for kind in BUFFERS]


def zeros(*shape, dtype=np.float32, buffer=mapped):
    """Zeros in memory that was touched; in ordinary pages, unless of another kind of buffer."""
    values = buffer(math.prod(shape) * np.dtype(dtype).itemsize).view(dtype).reshape(shape)
    values[:] = 0
    return values


def part_in_huge_pages(*tensors):
    """The kernel's entry for the memory of these tensors."""
    spans = [(t.ctypes.data, t.ctypes.data + t.nbytes) for t in tensors]
    counts, counted = {"Rss": 0, "AnonHugePages": 0}, False
    for line in pathlib.Path("/proc/self/smaps").read_text().splitlines():
        key, *values = line.split()
        if not key.endswith(":"):
            start, end = (int(address, 16) for address in key.split("-"))
            counted = any(start < last and first < end for first, last in spans)
        elif counted and key[:-1] in counts:
            counts[key[:-1]] += int(values[0])
    return counts["AnonHugePages"] / counts["Rss"]


@functools.cache
def library():
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", WORKSPACE / "target"))
    lib = ctypes.CDLL(str((target / "release/libsoftmax_peers.so").resolve()))
    lib.softmax_peers_nt_stores.restype = ctypes.c_char_p
    lib.softmax_peers_candle_new.restype = ctypes.c_void_p
    lib.softmax_peers_latency.restype = lib.softmax_peers_latency_c.restype = ctypes.c_double
    return lib


def pointers(*tensors):
    """The arguments of a C function for tensors of one shape, as matrices."""
    rows, cols = tensors[0].reshape(-1, tensors[0].shape[-1]).shape
    return [*(ctypes.c_void_p(t.ctypes.data) for t in tensors), ctypes.c_size_t(rows), ctypes.c_size_t(cols)]


def rust(name, *arguments):
    """A call of `softmax_peers_NAME` with converted arguments."""
    function = getattr(library(), "softmax_peers_" + name)

    def run():
        if function(*arguments) != 0:
            raise RuntimeError(f"softmax_peers_{name} refused the call")

    return run


@dataclasses.dataclass
class Contestant:
    name: str
    x: np.ndarray
    y: np.ndarray
    run: callable  # returns its result, or None if that is in y
    check: callable = None  # untimed, instead of `run`, for the check
    measure: callable = None  # its own way to measure seconds
    free: callable = lambda: None
    answer: Case = None  # the case whose answer it gives, if not the one it takes part in
    rounds: int = 0
    times: list = dataclasses.field(default_factory=list)

    def seconds(self):
        if self.measure:
            return self.measure()
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start


def ours(x, y, kernel=None, name="ours"):
    element = {"float32": 0, "float16": 1, "uint16": 2, "float64": 3}[x.dtype.name]
    run = rust("ours", ctypes.c_uint(element), ctypes.c_char_p(kernel), *pointers(x, y))
    return Contestant(name, x, y, run)


def attention(x, y, mask=None, name="ours"):
    """Causal, or with a mask that is added."""
    mask = ctypes.c_void_p(None if mask is None else mask.ctypes.data)
    return Contestant(name, x, y, rust("attention", mask, ctypes.c_size_t(x.shape[1]), *pointers(x, y)))


def along(axis, x, y):
    sizes = ctypes.c_ssize_t(axis), ctypes.c_size_t(x.shape[1])
    return Contestant("ours", x, y, rust("axis", *sizes, *pointers(x, y)))


def in_place(contestant, x):
    """For the check the input is x; for timing y is overwritten again and again."""
    y = contestant.y

    def check():
        y[:] = x
        contestant.run()

    return dataclasses.replace(contestant, x=x, check=check)


def latency(ns):
    if not ns >= 0:
        raise RuntimeError("the calls failed")
    return ns * 1e-9


def one_call(name, number, x, y):
    """Many calls in a loop in Rust, so that ctypes costs nothing."""
    arguments = [ctypes.c_uint(number), *pointers(x, y)]
    arguments.pop(-2)  # there is one row

    def calls(n):
        return latency(library().softmax_peers_latency(*arguments, ctypes.c_size_t(n)))

    def run():
        calls(1)

    return Contestant(name, x, y, run, measure=lambda: calls(LATENCY_CALLS))


def converted(x, dtype):
    """Buffers for x as f64, f16, or bf16 (cut off, as u16), and for the result."""
    values = zeros(*x.shape, dtype=dtype)
    values[:] = x.view(np.uint32) >> 16 if dtype == np.uint16 else x
    return values, zeros(*x.shape, dtype=dtype)


class CMatrix(ctypes.Structure):
    """`softmax_matrix` of capi/include/softmax.h, as are the next two structs."""

    _fields_ = [("size", ctypes.c_size_t), ("data", ctypes.c_void_p), ("dtype", ctypes.c_uint32)]
    _fields_ += [(name, ctypes.c_size_t) for name in ("rows", "cols", "stride")]


class COptions(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("scale", ctypes.c_double), ("temperature", ctypes.c_double)]
    _fields_ += [("flags", ctypes.c_uint32), ("kernel", ctypes.c_char_p), ("threads", ctypes.c_size_t)]
    _fields_ += [("parallel", ctypes.c_void_p), ("scratch", ctypes.c_void_p)]
    _fields_ += [(name, ctypes.c_size_t) for name in ("scratch_size", "cache_core", "cache_last")]
    _fields_ += [("message", ctypes.c_char_p), ("message_size", ctypes.c_size_t)]


class CAttention(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("size", "heads", "queries")]
    _fields_ += [("flags", ctypes.c_uint32), ("soft_cap", ctypes.c_double), ("mask", ctypes.c_void_p)]
    _fields_ += [("mask_dtype", ctypes.c_uint32), ("mask_shape", ctypes.c_size_t * 3)]
    _fields_ += [(name, ctypes.c_void_p) for name in ("mask_slopes", "alibi", "sinks", "lengths")]
    _fields_ += [("lengths_count", ctypes.c_size_t), ("window", ctypes.c_size_t)]
    _fields_ += [("offset", ctypes.c_ssize_t), ("window_ahead", ctypes.c_size_t)]


def by_c(name, lib, case, x, y, threads):
    """This library, or an earlier one, by the C ABI."""

    def described(kind, **fields):
        return ctypes.byref(kind(size=ctypes.sizeof(kind), **fields))

    def matrix(values):
        rows, cols = values.reshape(-1, values.shape[-1]).shape
        return described(CMatrix, data=values.ctypes.data, dtype=dtype, rows=rows, cols=cols, stride=cols)

    dtype = {"float32": 0, "float64": 1, "float16": 2, "uint16": 3}[x.dtype.name]
    kernel = b"avx2" if "AVX2" in case.kind else None
    options = described(COptions, scale=1, temperature=1, kernel=kernel, threads=threads)
    arguments = [matrix(y if case.kind == "in place" else x), matrix(y), options]
    function = lib.softmax_softmax
    if case.kind == "causal":
        function = lib.softmax_attention_softmax
        causal = described(CAttention, heads=x.shape[0], queries=x.shape[1], flags=1)
        arguments[2:] = ctypes.c_void_p(None), causal, options
    elif case.kind.startswith("axis"):
        function = lib.softmax_softmax_axis
        shape = (ctypes.c_size_t * len(x.shape))(*x.shape)
        sizes = shape, ctypes.c_size_t(len(shape)), ctypes.c_ssize_t(case.axis)
        arguments = [*pointers(x, y)[:2], ctypes.c_uint32(dtype), *sizes, options]

    def run():
        status = function(*arguments)
        if status != 0:
            raise RuntimeError(f"status {status}")

    def calls():
        address, count = ctypes.cast(function, ctypes.c_void_p), ctypes.c_size_t(LATENCY_CALLS)
        return latency(library().softmax_peers_latency_c(address, *arguments, count))

    contestant = Contestant(name, x, y, run, measure=calls if case.kind == "one call" else None)
    return [in_place(contestant, x) if case.kind == "in place" else contestant]


def torch_calls(case, x, y, threads):
    import torch

    torch.set_num_threads(threads)
    x, y, axis = torch.from_numpy(x), torch.from_numpy(y), case.axis
    known_to_numpy = x.dtype
    if case.kind == "bf16":
        x, y = x.view(torch.bfloat16), y.view(torch.bfloat16)

    def into_y():
        torch.softmax(x, axis, out=y)

    if case.kind != "causal":
        yield "torch", into_y
        yield ALLOCATING, lambda: torch.softmax(x, axis).view(known_to_numpy)
        return
    hidden, added = map(torch.from_numpy, case.masks)
    masked = torch.from_numpy(zeros(*x.shape))
    minus_inf = torch.tensor(-torch.inf)

    def fill():
        torch.where(hidden, minus_inf, x, out=masked)
        torch.softmax(masked, axis, out=y)

    def add():
        torch.add(x, added, out=masked)
        torch.softmax(masked, axis, out=y)

    yield "torch", fill
    yield "torch", add
    yield ALLOCATING, lambda: torch.softmax(x.masked_fill(hidden, -torch.inf), axis)


def onnxruntime_calls(case, x, y, threads):
    import onnxruntime
    from onnx import TensorProto, helper

    inputs, nodes = {"x": x}, [helper.make_node("Softmax", ["x"], ["y"], axis=case.axis)]
    if case.kind == "causal":
        inputs["mask"] = case.masks[1]
        nodes[0].input[0] = "masked"
        nodes.insert(0, helper.make_node("Add", ["x", "mask"], ["masked"]))

    def info(name, values):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, values.shape)

    graph = helper.make_graph(nodes, "softmax", [info(*item) for item in inputs.items()], [info("y", y)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    binding = session.io_binding()
    for name, values in inputs.items():
        binding.bind_input(name, "cpu", 0, np.float32, values.shape, values.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    yield "onnxruntime", lambda: session.run_with_iobinding(binding)


def scipy_calls(_case, x, _y, _threads):
    from scipy.special import softmax

    yield "scipy", lambda: softmax(x, axis=-1)


def openvino_calls(_case, x, y, threads):
    import openvino
    from openvino import opset13

    parameter = opset13.parameter(list(x.shape), np.float32)
    config = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Model([opset13.softmax(parameter, axis=-1)], [parameter])
    request = openvino.compile_model(model, "CPU", config).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
    request.set_output_tensor(openvino.Tensor(y, shared_memory=True))

    def run():
        request.infer(share_outputs=True)

    yield "openvino", run


def jax_calls(_case, x, _y, _threads):
    import jax

    x = jax.device_put(x)
    softmax = jax.jit(lambda x: jax.nn.softmax(x, axis=-1))
    yield "jax", lambda: softmax(x).block_until_ready()


@functools.cache
def xnnpack():
    """Debian's library, if it is installed."""
    found = ctypes.util.find_library("XNNPACK")
    return found and ctypes.CDLL(found)


def xnnpack_calls(_case, x, y, threads):
    lib = xnnpack()
    lib.pthreadpool_create.restype = ctypes.c_void_p
    pool = ctypes.c_void_p(lib.pthreadpool_create(ctypes.c_size_t(threads)) if threads > 1 else None)
    operator, sleep = ctypes.c_void_p(), ctypes.c_uint32(16)  # XNN_FLAG_YIELD_WORKERS: none spins
    address, (x, y, rows, cols) = ctypes.byref(operator), pointers(x, y)

    def call(function, *arguments):
        if function(*arguments) != 0:
            raise RuntimeError(f"{function.__name__} failed")

    call(lib.xnn_initialize, None)
    if hasattr(lib, "xnn_reshape_softmax_nc_f32"):  # Debian 13
        call(lib.xnn_create_softmax_nc_f32, sleep, address)
        call(lib.xnn_reshape_softmax_nc_f32, operator, cols, cols, cols, rows, pool)
        call(lib.xnn_setup_softmax_nc_f32, operator, x, y)
    else:  # Debian 12
        call(lib.xnn_create_softmax_nc_f32, cols, cols, cols, sleep, address)
        call(lib.xnn_setup_softmax_nc_f32, operator, rows, x, y, pool)
    yield "xnnpack", functools.partial(call, lib.xnn_run_operator, operator, pool)


def candle(x, y):
    tensor = library().softmax_peers_candle_new(*pointers(x))
    if not tensor:
        raise RuntimeError("softmax_peers_candle_new failed")
    tensor = ctypes.c_void_p(tensor)
    run, check = rust("candle_run", tensor, None), rust("candle_run", tensor, pointers(y)[0])
    return Contestant("candle-nn", x, y, run, check=check, free=rust("candle_free", tensor))


def peer(name, case, x, y, threads):
    """A peer's contestants: several if there are several ways to call it."""
    if name == "candle-nn":
        return [candle(x, y)]
    if name in RUST_PEERS:
        return [Contestant(name, x, y, rust(name.split("-")[0], *pointers(x, y)))]
    return [Contestant(call, x, y, run) for call, run in globals()[name + "_calls"](case, x, y, threads)]


def makers(case, x, y, threads, args):
    """Names, and functions that make the contestants of each name."""
    peers, typed = args.peers, (x, y)
    match case.kind:
        case "in place":
            yield "ours", lambda: [in_place(ours(y, y), x)]
            yield SCALE, lambda: [Contestant(SCALE, x, y, rust("scale", *pointers(y)))]
        case "one call":
            yield "ours", lambda: [one_call("ours", 0, x, y)]
            if "rten-vecmath" in peers:
                yield "rten-vecmath", lambda: [one_call("rten-vecmath", 1, x, y)]
        case "AVX2 kernel forced":
            yield "ours", lambda: [ours(x, y, b"avx2")]
            yield AVX512, lambda: [ours(x, y, b"avx512", AVX512)]
        case "f16" | "bf16" | "f64":
            typed = converted(x, {"f16": np.float16, "bf16": np.uint16, "f64": np.float64}[case.kind])
            yield "ours", lambda: [ours(*typed)]
            yield F32, lambda: [ours(x, y, name=F32)]
            if "torch" in peers:
                yield "torch", lambda: peer("torch", case, *typed, threads)
        case _:
            plain = Case(case.shape)
            if case.kind == "causal":
                yield "ours", lambda: [attention(x, y)]
                yield MASK, lambda: [attention(x, y, case.masks[1], MASK)]
                yield UNMASKED, lambda: [dataclasses.replace(ours(x, y, name=UNMASKED), answer=plain)]
            elif case.kind.startswith("axis"):
                yield "ours", lambda: [along(case.axis, x, y)]
                yield LAST, lambda: [dataclasses.replace(ours(x, y, name=LAST), answer=plain)]
            else:
                yield "ours", lambda: [ours(x, y)]
            yield NT, lambda: [Contestant(NT, x, y, rust("nt_copy", *pointers(x, y)))]
            yield MEMCPY, lambda: [Contestant(MEMCPY, x, y, rust("memcpy", *pointers(x, y)))]
            for name in peers:
                if case.kind not in BUFFERS and (len(case.shape) == 2 or name in TENSOR_PEERS):
                    yield name, functools.partial(peer, name, case, x, y, threads)
    if args.before and case.kind not in BUFFERS:
        for name, lib in (OURS_C, library()), (BEFORE, ctypes.CDLL(args.before)):
            yield name, functools.partial(by_c, name, lib, case, *typed, threads)


def wide(values):
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values


def largest_error(contestant, case):
    """The error of some rows after one call, in ULP; infinite if a hidden key is not 0."""
    y = contestant.y
    y[:] = np.nan if y.dtype != np.uint16 else 0x7FC0
    result = (contestant.check or contestant.run)()
    result = y if result is None else np.asarray(result)
    case = contestant.answer or case
    sample = case.sample()
    wider = np.longdouble if y.dtype == np.float64 else np.float64
    exact = case.rows(contestant.x, sample).astype(wider)
    if case.kind == "causal":
        hidden = case.masks[0]
        if np.any((result != 0) & hidden):
            return math.inf
        exact[hidden[sample[1]]] = -np.inf
    result = case.rows(result, sample)
    exact -= exact.max(axis=1, keepdims=True)
    np.exp(exact, out=exact)
    exact /= exact.sum(axis=1, keepdims=True)
    ulp = np.spacing(exact.astype(result.dtype)).astype(wider)
    if y.dtype == np.uint16:
        ulp *= 1 << 16  # 16 bits fewer than f32
    return float(np.max(np.abs(result - exact) / ulp))


def run_case(case, threads, args):
    """Checks and times all contestants; an error of one does not stop the others."""
    row = {"case": case.name, "threads": threads, "errors": []}
    if "AVX2" in case.kind and not all(library().softmax_peers_has_kernel(k) for k in (b"avx2", b"avx512")):
        return row | {"not_applicable": True}
    x, y = (zeros(*case.shape, buffer=BUFFERS.get(case.kind, mapped)) for _ in "xy")
    np.random.default_rng(0).standard_normal(out=x, dtype=np.float32)
    x *= 4
    if case.kind in BUFFERS:
        row["start"] = ", ".join(str(t.ctypes.data % mmap.PAGESIZE) for t in (x, y))
        row["huge"] = part_in_huge_pages(x, y)

    large = x.nbytes > LARGE
    rounds = args.rounds or (3 if args.quick else 200 if case.kind == "one call" else 15 if large else 100)
    made, order, ulp, speed = [], [], {}, {}
    for name, make in makers(case, x, y, threads, args):
        try:
            for c in make():
                made.append(c)
                if name not in LIMITS:
                    error = largest_error(c, case)
                    # Most peers sum a row one by one in f32: that is how they work.
                    if not error <= (max(1000, case.shape[case.axis] >> 8) if name in PEERS else 3):
                        raise ValueError(f"wrong: {error:.1f} ULP")
                    ulp[c.name] = max(error, ulp.get(c.name, 0))
                seconds = c.seconds() * (1 if large else 2)
                affordable = max(3, int(PEER_SECONDS / seconds)) if name in PEERS else rounds
                c.rounds = min(rounds, affordable)
                order.append(c)
        except Exception as error:
            row["errors"].append(f"{case.name}, threads {threads}, {name}: {error}")
    for r in range(rounds):
        random.shuffle(order)
        for c in order:
            if (r + 1) * c.rounds // rounds == r * c.rounds // rounds:
                continue  # fewer rounds are spread evenly
            if threads > 1:
                time.sleep(0.001)  # the others' threads go to sleep
            if not large and not c.measure:
                c.run()
            c.times.append(c.seconds())
    for c in order:
        speed[c.name] = max(x.size / np.median(c.times) / 1e9, speed.get(c.name, 0))
    for c in made:
        c.free()
    return row | {"rounds": {c.name: c.rounds for c in order}, "speed": speed, "ulp": ulp}


def half(args):
    """The work of a child process: all cases with one number of threads, a JSON line each."""
    rust("start", ctypes.c_size_t(args.threads))()
    print(json.dumps({"nt": library().softmax_peers_nt_stores().decode()}), flush=True)
    random.seed(0)
    gc.disable()
    for number, case in enumerate(CASES):
        if args.only not in case.name or (case.kind == "one call" and args.threads > 1):
            continue
        row = run_case(case.tiny() if args.quick else case, args.threads, args)
        gc.collect()  # the buffers
        row |= {"number": number, "targets": case.one if args.threads == 1 else case.two}
        print(json.dumps(row), flush=True)


def run_half(threads):
    """Starts a child process; returns its lines."""
    env = os.environ | {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    env |= {"OMP_WAIT_POLICY": "passive", "KMP_BLOCKTIME": "0"}
    env |= {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": str(threads)}
    env.pop("SOFTMAX_KERNEL", None)

    def pin():
        if threads == 1:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

    command = [sys.executable, __file__, *sys.argv[1:], "--threads", str(threads)]
    lines = []
    with subprocess.Popen(command, env=env, preexec_fn=pin, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            lines.append(json.loads(line))
            print(lines[-1].get("case", ""), f"(threads: {threads})", file=sys.stderr)
    if child.returncode != 0:
        lines.append({"errors": [f"the half with {threads} threads ended with {child.returncode}"]})
    return lines


def best_peer(speed, of=BEST):
    names = PEERS if of == PREALLOCATED else [*PEERS, ALLOCATING]
    return max(set(speed) & set(names), key=speed.get, default=None)


def ratio(speed, of):
    """Ours as a multiple of `of`: None if one of them is missing."""
    if of == RTEN_TIME:
        inverse = ratio(speed, "rten-vecmath")
        return inverse and 1 / inverse
    other = speed.get(best_peer(speed, of) if of in (BEST, PREALLOCATED) else of)
    own = speed.get(OURS_C if of == BEFORE else "ours")
    return own / other if other and own else None


def verdict(row):
    """The cells target, result, met."""
    if not row["targets"]:
        return "none", "", ""
    results = [(relation, factor, ratio(row["speed"], of), of) for relation, factor, of in row["targets"]]
    holds = {">=": operator.ge, ">": operator.gt, "<=": operator.le}
    target = ", ".join(f"{relation} {factor} x {of}" for relation, factor, _, of in results)
    result = ", ".join("missing" if r is None else f"{r:.2f}" for _, _, r, _ in results)
    met = all(r is not None and holds[relation](r, factor) for relation, factor, r, _ in results)
    return target, result, "yes" if met else "no"


def cell(value, digits=2):
    return "" if value is None else f"{value:.{digits}f}"


def table(header, rows):
    rows = list(rows)
    if not rows:
        return
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    print()


def result_row(row):
    if row.get("not_applicable"):
        return [row["case"], row["threads"], "not applicable"] + [""] * 8
    speed, ulp = row["speed"], row["ulp"]
    best = best_peer(speed)
    copies = [cell(ratio(speed, NT)), cell(ratio(speed, MEMCPY))]
    peers = [f"{best} {speed[best]:.3f}" if best else "", cell(ratio(speed, BEST))]
    errors = cell(ulp.get("ours")) + (f", {ulp[best]:.0f}" if best else "")
    return [row["case"], row["threads"], cell(speed.get("ours"), 3), *copies, *peers, errors, *verdict(row)]


def buffers_row(row):
    speed = row["speed"]
    where = [row["case"], row["threads"], row["start"], f"{row['huge']:.0%}"]
    ratios = [cell(ratio(speed, of)) for of in (NT, MEMCPY)]
    return [*where, *(cell(speed.get(name), 3) for name in ("ours", NT, MEMCPY)), *ratios]


def before_row(row):
    speed = row["speed"]
    speeds = [cell(speed.get(name), 3) for name in (OURS_C, BEFORE)]
    return [row["case"], row["threads"], *speeds, cell(ratio(speed, BEFORE))]


def output(*command):
    """The output of a command, or nothing if it does not exist or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def version(name):
    if name == "xnnpack":
        return output("dpkg-query", "-W", "-f", "${Version}", "libxnnpack0*") or "of unknown version"
    return importlib.metadata.version(name)


def installed(name):
    return xnnpack() if name == "xnnpack" else importlib.util.find_spec(name)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, help="default: 15 above 64 MiB, 100 below, 200 for one call")
    parser.add_argument("--quick", action="store_true", help="tiny cases, 3 rounds: does everything run?")
    parser.add_argument("--only", default="", metavar="SUBSTRING", help="cases whose name has it")
    parser.add_argument("--json", metavar="FILE", help="the results, also as JSON")
    parser.add_argument("--record", metavar="FILE", help="what is printed, also to FILE, a page of docs/records")
    parser.add_argument("--no-peers", default="", metavar="NAME,...", help="of: " + ", ".join(PEERS))
    parser.add_argument("--before", metavar="FILE", type=os.path.abspath, help="the C library of an earlier commit, also a peer")
    parser.add_argument("--threads", type=int, choices=[1, 2], help="for the child processes")
    args = parser.parse_args()
    skipped = set(filter(None, args.no_peers.split(",")))
    if not skipped <= set(PEERS):
        parser.error(f"--no-peers: one of them is not of {', '.join(PEERS)}")
    args.peers = [name for name in PEERS if name not in skipped]
    absent = [name for name in args.peers if name in OPTIONAL_PEERS and not installed(name)]
    args.peers = [name for name in args.peers if name not in absent]
    if args.threads:
        return half(args)

    needed = [p for p in PYTHON_PEERS if p in args.peers] + ["onnx"] * ("onnxruntime" in args.peers)
    missing = [p for p in needed if not installed(p)]
    if missing:
        sys.exit(f"not installed: {', '.join(missing)} (pip install them, or name the peers in --no-peers)")
    if args.before:
        try:
            ctypes.CDLL(args.before).softmax_softmax
        except (OSError, AttributeError) as error:
            parser.error(f"--before: {error}")
    if len(os.sched_getaffinity(0)) < 2:
        sys.exit("two CPUs are needed")
    lines = run_half(1) + run_half(2)
    rows = sorted((line for line in lines if "case" in line), key=lambda row: (row["number"], row["threads"]))
    errors = [error for line in lines for error in line.get("errors", [])]
    lock = tomllib.loads((WORKSPACE / "Cargo.lock").read_text())
    locked = {package["name"]: package["version"] for package in lock["package"]}
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cpuinfo)}
    cpu = found.get("model name", platform.machine())
    if "cpu family" in found:
        cpu += f" (family {found['cpu family']}, model {found['model']}; two cores of it)"
    describe = ["describe", "--always", "--dirty"]
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "CPU": cpu,
        "revision": output("git", "-C", HERE, *describe) or "unknown",
        "NT copy": next((line["nt"] for line in lines if "nt" in line), "did not run"),
        "peers": ", ".join(f"{p} {locked[p] if p in RUST_PEERS else version(p)}" for p in args.peers),
        "peers that are not installed": ", ".join(f"{p} ({OPTIONAL_PEERS[p]})" for p in absent) or "none",
        "speeds": "G elements/s, medians",
    }
    if args.before:
        where = output("git", "-C", pathlib.Path(args.before).parent, *describe) or "no commit"
        about["before"] = f"{args.before}, in a work tree of {where}"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        print_results(args, about, rows, errors)
    print(printed.getvalue(), end="")
    if args.record:
        command = " ".join(["benches/peers/compare.py", *sys.argv[1:]])
        pathlib.Path(args.record).write_text(f"# `{command}`\n\n{printed.getvalue()}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(about | {"rows": rows, "errors": errors}, indent=1))
    return 1 if errors or not rows else 0


def print_results(args, about, rows, errors):
    for what, answer in about.items():
        print(f"- {what}: {answer}")
    print("THESE ARE TINY CASES: they show that everything runs, and no speed.\n" if args.quick else "")
    buffers = [row for row in rows if "start" in row]
    rows = [row for row in rows if "start" not in row]
    header = "case|threads|ours|of NT copy|of memcpy|best peer|of best peer|ULP: ours, best peer"
    table((header + "|target|result|met").split("|"), map(result_row, rows))
    columns = ["ours", MASK, UNMASKED, LAST, F32, AVX512, *args.peers, ALLOCATING, *LIMITS]
    columns = [c for c in columns if any(c in r.get("speed", {}) for r in rows)]
    cells = [[r["case"], r["threads"], *(cell(r.get("speed", {}).get(c), 3) for c in columns)] for r in rows]
    table(["case", "threads", *columns], cells)
    if buffers:
        print("The three of a row have the same buffers, which start so many bytes into a page:\n")
        header = "buffers|threads|x, y start|in huge pages|ours|NT copy|memcpy|of NT copy|of memcpy"
        table(header.split("|"), map(buffers_row, buffers))
    if args.before:
        compared = [row for row in rows if BEFORE in row.get("speed", {})]
        table(["case", "threads", OURS_C, BEFORE, "of before"], map(before_row, compared))
    for error in errors:
        print("ERROR:", error)


if __name__ == "__main__":
    sys.exit(main())
