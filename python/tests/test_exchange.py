"""Tensors are read and made by DLPack's C functions, or by its methods where it has none: with
the same results and errors."""

import os
import subprocess
import sys

import pytest

import softmax

torch = pytest.importorskip("torch")

# What an older PyTorch lacks.
OLDER = """
import torch
del torch.Tensor.__dlpack_c_exchange_api__
of_many = torch._C._increment_version
def of_one(tensor):
    if not isinstance(tensor, torch.Tensor):
        raise TypeError("a tensor, please")
    of_many((tensor,))
torch._C._increment_version = torch.autograd.graph.increment_version = of_one
"""

# Prints a line for each call.
CALLS = """
import torch, softmax

class Derived(torch.Tensor):
    pass

def show(name, f):
    try:
        y = f()
    except Exception as e:
        print(name, type(e).__name__, e)
        return
    for y in y if isinstance(y, tuple) else (y,):
        bits = y.detach().reshape(-1).contiguous().view(torch.uint8).tolist()
        print(name, type(y).__name__, y.dtype, tuple(y.shape), y.stride(), y.requires_grad, y.is_inference(), bits)

def version(f, out):
    f()
    return torch.tensor(out._version)

tokens = torch.tensor([1, 0, 2])
for dtype in [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]:
    x = (torch.arange(12).reshape(3, 4) % 5 / 2).to(dtype)
    large = (torch.arange(3000).reshape(3, 1000) % 5 / 2).to(dtype)
    for f in [softmax.softmax, softmax.log_softmax, softmax.logsumexp, softmax.sigmoid, softmax.log_sigmoid, softmax.hardmax]:
        for y in [x, large, x.T, x[:, ::2], x[0, 0], x[:0], x.expand(2, 3, 4), x.as_subclass(Derived), x.reshape(1, 1, 1, 3, 1, 2, 1, 2, 1)]:
            show(f.__name__, lambda: f(y))
    show("cross_entropy", lambda: softmax.cross_entropy(x, tokens))
    show("cross_entropy_with_grad", lambda: softmax.cross_entropy_with_grad(x, tokens))
    show("top_k", lambda: softmax.top_k(x, 2))
    show("argmax", lambda: softmax.argmax(x))
    show("log_probs", lambda: softmax.log_probs(x, tokens))
    show("attention", lambda: softmax.attention_softmax(x, causal=True, lse=True))
    out = torch.empty(3, 4, dtype=dtype)
    show("out", lambda: softmax.softmax(x, out=out))
    show("version", lambda: version(lambda: softmax.softmax(x, out=out), out))
    show("in place", lambda: softmax.softmax(x, out=x))
    show("subclass out", lambda: softmax.softmax(x, out=out.as_subclass(Derived)))
    with torch.inference_mode():
        show("inference", lambda: softmax.softmax(torch.ones(3, dtype=dtype), out=torch.ones(3, dtype=dtype)))

leaf = torch.ones(3, requires_grad=True)
show("requires grad", lambda: softmax.softmax(leaf))
show("parameter", lambda: softmax.softmax(torch.nn.Parameter(torch.ones(3))))
show("no grad", lambda: torch.no_grad()(softmax.softmax)(leaf))
show("out requires grad", lambda: softmax.softmax(torch.ones(3), out=leaf))
show("meta", lambda: softmax.softmax(torch.ones(3, device="meta")))
show("out meta", lambda: softmax.softmax(torch.ones(3), out=torch.ones(3, device="meta")))
show("sparse", lambda: softmax.softmax(torch.eye(3).to_sparse()))
show("complex", lambda: softmax.softmax(torch.ones(3, dtype=torch.complex64)))
show("float8", lambda: softmax.softmax(torch.ones(3).to(torch.float8_e4m3fn)))
show("int8", lambda: softmax.softmax(torch.ones(3, dtype=torch.int8)))
show("zeros of no memory", lambda: softmax.softmax(torch._efficientzerotensor((3,))))
"""


def lines(code):
    # Where a program finds no folder `softmax` but what is installed.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=os.path.dirname(__file__),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_results_and_errors_do_not_depend_on_it():
    assert hasattr(torch.Tensor, "__dlpack_c_exchange_api__"), "this PyTorch has none: the test compares nothing"
    new, old = lines(CALLS), lines(OLDER + CALLS)
    assert len(new) > 400
    for a, b in zip(new, old, strict=True):
        assert a == b
    errors = [line for line in new if "Error" in line]
    for words in ["requires grad", "on meta", "sparse", "complex64", "float8"]:
        assert any(words in line for line in errors), errors


@pytest.mark.parametrize("wide", [torch.complex64, torch.complex128])
def test_parts_of_conjugates_are_negative(wide):
    numbers = torch.randn(4, 3, dtype=wide, generator=torch.Generator().manual_seed(2))
    x = numbers.conj().imag
    views = [x, x.T, x[0], x[0, 0], x[:, :1], x[:1, :1], x[::2], x.unsqueeze(-1), x.view(4, 1, 3), x.view(12)]
    views += [x.expand(2, 4, 3), x.diagonal(), x.unfold(1, 2, 1), x.as_strided((2, 3), (6, 2)), x[:, 0].unsqueeze(1)]
    # Strides that are odd, too.
    views += [x.as_strided((3, 5), (3, 1)), torch._neg_view(torch.arange(6.0).reshape(2, 3))]
    for view in views:
        assert view.is_neg()
        want = softmax.softmax(view.resolve_neg().clone())
        assert torch.equal(softmax.softmax(view), want)


def test_small_results_are_tensors_like_others():
    y = softmax.softmax(torch.ones(2, 3))
    assert y.is_contiguous() and y.data_ptr() % 64 == 0 and y.untyped_storage().nbytes() == 24
    kept = [softmax.softmax(torch.full((n,), 0.5)) for n in range(1, 1100)]
    assert all(torch.equal(y, torch.full((n,), 1 / n)) for n, y in enumerate(kept, 1) if n & (n - 1) == 0)
    view = kept[99][10:20]
    del kept, y
    view += 1.0
    assert torch.allclose(view, torch.full((10,), 1.01))
    x = torch.ones(3, requires_grad=True)
    (x * softmax.softmax(torch.ones(3))).sum().backward()
    assert torch.allclose(x.grad, torch.full((3,), 1 / 3))
