"""softmax.torch: gradients, and models that know nothing of it."""

import os
import subprocess
import sys

import pytest

import softmax

torch = pytest.importorskip("torch")
import torch.nn.functional as F
from torch import nn

import softmax.torch as st


def randn(*shape, dtype=torch.float64, seed=1):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (x * 2).to(dtype).requires_grad_()


CALLS = {
    "softmax": (st.softmax, torch.softmax, [(0,), (1,), (-1,)]),
    "log_softmax": (st.log_softmax, torch.log_softmax, [(0,), (1,), (-1,)]),
    "logsumexp": (st.logsumexp, torch.logsumexp, [(0,), (-1, True), ((0, 2),), ((0, 1), True)]),
}


@pytest.mark.parametrize("name", CALLS)
def test_gradients_and_their_gradients(name):
    ours, theirs, calls = CALLS[name]
    x = randn(3, 4, 5)
    for args in calls:
        a, b = ours(x, *args), theirs(x, *args)
        assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-14, atol=1e-14)
        upstream = torch.randn_like(b)
        (da,), (db,) = torch.autograd.grad(a, x, upstream), torch.autograd.grad(b, x, upstream)
        assert torch.allclose(da, db, rtol=1e-13, atol=1e-14)
        assert torch.autograd.gradcheck(lambda x: ours(x, *args), x)
        assert torch.autograd.gradgradcheck(lambda x: ours(x, *args), x)
        # Of a tensor in another layout, with an upstream gradient that is one number everywhere.
        y = x.permute(2, 0, 1)
        (da,) = torch.autograd.grad(ours(y, *args).sum(), x)
        (db,) = torch.autograd.grad(theirs(y, *args).sum(), x)
        assert torch.allclose(da, db, rtol=1e-13, atol=1e-13)
    zero = torch.tensor(2.0, requires_grad=True)
    ours(zero, 0).backward()
    assert zero.grad == (1 if name == "logsumexp" else 0)


OPTIONS = [
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"label_smoothing": 0.1},
    {"weight": torch.tensor([0.5, 1.0, 2.0, 1.5, 0.25], dtype=torch.float64)},
    {
        "weight": torch.tensor([0.5, 1.0, 2.0, 1.5, 0.25], dtype=torch.float64),
        "label_smoothing": 0.2,
        "reduction": "none",
    },
    {"ignore_index": 2},
]


# PyTorch ignores no probabilities.
TARGETS = [(False, o) for o in OPTIONS] + [(True, o) for o in OPTIONS if "ignore_index" not in o]


@pytest.mark.parametrize(("probabilities", "options"), TARGETS, ids=str)
def test_cross_entropy(probabilities, options):
    for shape in [(7, 5), (2, 5, 3), (5,)]:
        x = randn(*shape)
        where = 0 if len(shape) == 1 else 1
        if probabilities:
            target = randn(*shape, seed=2).detach().softmax(where)
        else:
            outer = [n for i, n in enumerate(shape) if i != where]
            target = torch.randint(5, outer, generator=torch.Generator().manual_seed(3))
        a, b = st.cross_entropy(x, target, **options), F.cross_entropy(x, target, **options)
        assert a.shape == b.shape and torch.allclose(a, b, rtol=1e-13, atol=1e-14)
        upstream = torch.randn_like(b)
        (da,), (db,) = torch.autograd.grad(a, x, upstream), torch.autograd.grad(b, x, upstream)
        assert torch.allclose(da, db, rtol=1e-13, atol=1e-14)
        assert torch.autograd.gradcheck(lambda x: st.cross_entropy(x, target, **options), x)
        assert torch.autograd.gradgradcheck(lambda x: st.cross_entropy(x, target, **options), x)


def test_losses_and_gradients_near_zero_are_exact():
    x = torch.tensor([[40.0, 0.0]], requires_grad=True)
    loss = st.cross_entropy(x, torch.tensor([0]))
    loss.backward()
    # PyTorch gives 0 and 0.
    assert loss.item() == pytest.approx(4.248354e-18, rel=1e-6)
    assert x.grad[0, 0].item() == pytest.approx(-4.248354e-18, rel=1e-6)


def test_half_types_have_gradients():
    for dtype in [torch.float16, torch.bfloat16]:
        x = randn(4, 6, dtype=dtype).detach().requires_grad_()
        st.softmax(x, -1).backward(torch.ones(4, 6, dtype=dtype))
        st.cross_entropy(x, torch.tensor([0, 1, 2, 3])).backward()
        assert x.grad.dtype == dtype and x.grad.isfinite().all()


def test_what_has_no_gradient_is_refused():
    x = randn(3, 4)
    with pytest.raises(TypeError, match="target requires grad"):
        st.cross_entropy(x, randn(3, 4))
    with pytest.raises(ValueError, match="reduction"):
        st.cross_entropy(x, torch.tensor([0, 1, 2]), size_average=True)


def test_vmap_is_refused():
    for x in [randn(3, 4), randn(3, 4).detach()]:
        with pytest.raises((RuntimeError, TypeError), match="vmap|no memory that could be read"):
            torch.func.vmap(lambda x: st.softmax(x, -1))(x)


def test_grad_of_functions():
    x = randn(3, 4).detach()
    ours = torch.func.grad(lambda x: (st.softmax(x, -1) ** 2).sum())(x)
    theirs = torch.func.grad(lambda x: (torch.softmax(x, -1) ** 2).sum())(x)
    assert torch.allclose(ours, theirs, rtol=1e-13, atol=1e-14)


def test_calls_within_functions_of_pytorch_are_found():
    x = randn(2, 5, 8, dtype=torch.float32).detach()
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    for weights, name in [(True, "softmax"), (False, "scaled_dot_product_attention")]:
        for grad in [torch.no_grad, torch.enable_grad]:
            with grad():
                plain = attention(x, x, x, need_weights=weights)[0]
                with st.patch(strict=True) as patched:
                    ours = attention(x, x, x, need_weights=weights)[0]
            assert patched.calls == {name: 1} and torch.allclose(plain, ours, rtol=1e-5, atol=1e-6)


def test_patch_replaces_each_of_them():
    x = randn(6, 8, dtype=torch.float32)
    labels = torch.arange(6)
    calls = {
        "softmax": [
            lambda: F.softmax(x, dim=-1),
            lambda: torch.softmax(x, -1),
            lambda: x.softmax(-1),
            lambda: nn.Softmax(-1)(x),
            lambda: F.softmax(x, -1, dtype=torch.float64),
            lambda: torch.special.softmax(x, 1),
        ],
        "log_softmax": [lambda: F.log_softmax(x, dim=-1), lambda: nn.LogSoftmax(-1)(x), lambda: x.log_softmax(-1)],
        "logsumexp": [lambda: torch.logsumexp(x, -1), lambda: x.logsumexp(dim=(0, 1), keepdim=True)],
        "cross_entropy": [lambda: F.cross_entropy(x, labels), lambda: nn.CrossEntropyLoss()(x, labels)],
    }
    for name, each in calls.items():
        for call in each:
            plain = call()
            with st.patch(strict=True) as patched:
                ours = call()
            assert patched.calls == {name: 1}
            assert plain.dtype == ours.dtype and torch.allclose(plain, ours, rtol=1e-5, atol=1e-6)
    # The bits are those of this library.
    with st.patch():
        inside = F.softmax(x, -1)
    assert torch.equal(inside, softmax.softmax(x.detach()))
    assert not torch.equal(F.softmax(x * 9, -1), softmax.softmax(x.detach() * 9))


def test_patch_leaves_what_is_not_its_own():
    with st.patch() as patched:
        y = F.softmax(torch.ones(3, device="meta"), -1)
        assert y.device.type == "meta"
        z = F.softmax(torch.ones(3), -1, dtype=torch.float64)
    assert patched.left == {("softmax", "a tensor is on meta"): 1} and patched.calls == {"softmax": 1}
    assert z.dtype == torch.float64
    with st.patch(strict=True), pytest.raises(TypeError, match="softmax is left to PyTorch.*on meta"):
        F.softmax(torch.ones(3, device="meta"), -1)


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"scale": 0.3}, {"mask": "bool"}, {"mask": "float"}, {"gqa": True}], ids=str
)
def test_attention(options):
    options = dict(options)
    q, k, v = (randn(2, 4, 5, 8, dtype=torch.float32, seed=s).detach().requires_grad_() for s in range(3))
    mask = options.pop("mask", None)
    if mask:
        options["attn_mask"] = torch.rand(5, 5, generator=torch.Generator().manual_seed(1)) > 0.5
        options["attn_mask"][1] = False
        if mask == "float":
            options["attn_mask"] = torch.where(options["attn_mask"], 0.0, -torch.inf)
    if options.pop("gqa", False):
        k, v, options["enable_gqa"] = k.detach()[:, :2].requires_grad_(), v.detach()[:, :2].requires_grad_(), True
    plain = F.scaled_dot_product_attention(q, k, v, **options)
    with st.patch(strict=True) as patched:
        ours = F.scaled_dot_product_attention(q, k, v, **options)
    assert patched.calls["scaled_dot_product_attention"] == 1
    assert torch.allclose(plain, ours, rtol=1e-5, atol=1e-6)
    a, b = torch.autograd.grad(plain.sum(), (q, k, v)), torch.autograd.grad(ours.sum(), (q, k, v))
    assert all(torch.allclose(x, y, rtol=1e-4, atol=1e-5) for x, y in zip(a, b))


class Model(nn.Module):
    """A small Transformer with a causal mask, from a configuration."""

    def __init__(self, vocabulary=97, width=32, heads=4, layers=2):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(64, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        n = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(n)
        x = self.tokens(tokens) + self.positions(torch.arange(n))
        return self.head(self.layers(x, mask=mask, is_causal=True))


def model():
    torch.manual_seed(0)
    return Model().eval()


def test_a_model_trains_the_same():
    tokens = torch.randint(97, (3, 12), generator=torch.Generator().manual_seed(5))
    grads = []
    for context in [torch.enable_grad(), st.patch(strict=True)]:
        m = model()
        with context:
            logits = m(tokens[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
        grads.append([p.grad for p in m.parameters()])
    assert context.calls["cross_entropy"] == 1 and context.calls["scaled_dot_product_attention"] == 2
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(*grads))


GENERATE = """
import sys, hashlib
sys.path.insert(0, {tests!r})
import torch, softmax, softmax.torch
from test_torch import model
batch, threads = map(int, sys.argv[1:])
torch.set_num_threads(threads)
m = model()
sampler = softmax.Sampler(seed=1, temperature=0.8, top_p=0.9, threads=threads)
prompts = torch.randint(97, (7, 4), generator=torch.Generator().manual_seed(2))
hashed = lambda *xs: hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in xs)).hexdigest()
logits, probs, draws = [], [], []
with torch.no_grad(), softmax.torch.patch(strict=True) as patched:
    for first in range(0, 7, batch):
        tokens = prompts[first : first + batch]
        for step in range(8):
            last = m(tokens)[:, -1]
            logits.append(last)
            probs.append(torch.softmax(last, -1))
            drawn = sampler.sample(last, step=step, first_row=first)
            draws.append(drawn)
            tokens = torch.cat([tokens, drawn[:, None]], 1)
by_sequence = lambda xs: [torch.stack(xs[i * 8 : i * 8 + 8], 1) for i in range(len(xs) // 8)]
# Of fixed logits: what this library promises.
fixed = torch.randn(7, 97, generator=torch.Generator().manual_seed(3)) * 3
with softmax.torch.patch():
    parts = [torch.softmax(fixed[i : i + batch], -1) for i in range(0, 7, batch)]
drawn = [sampler.sample(fixed[i : i + batch], first_row=i) for i in range(0, 7, batch)]
print(hashed(*parts), hashed(*drawn), hashed(torch.cat(by_sequence(logits))), hashed(torch.cat(by_sequence(probs))),
      hashed(torch.cat(by_sequence(draws))), *patched.calls.keys())
"""


def generate(batch, threads, kernel):
    environment = {**os.environ, "SOFTMAX_KERNEL": kernel}
    code = GENERATE.format(tests=os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", code, str(batch), str(threads)],
        cwd=os.path.dirname(__file__),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_generation_is_reproducible_where_the_logits_are():
    """Where softmax and draws agree to the bit, and what else does not: docs/python.md says it."""
    kernels = [k for k in ("avx512", "avx2", "neon", "portable", "scalar") if k in softmax.kernels()][:2]
    runs = {(b, t, k): generate(b, t, k) for b in (1, 7) for t in (1, 2) for k in kernels}
    for (b, t, k), (probs, draws, *model_bits, attention, last) in runs.items():
        assert (attention, last) == ("scaled_dot_product_attention", "softmax")
        same = runs[7, 1, kernels[0]]
        # Of the same logits softmax and draws have the same bits in any batch, by any kernel, on
        # any number of threads.
        assert (probs, draws) == tuple(same[:2]), (b, t, k)
        # So has all of the model, as long as PyTorch's matrix products get the same shapes and
        # threads: the kernel never matters.
        assert model_bits == runs[b, t, kernels[0]][2:5], (b, t, k)
    batches = [runs[b, 1, kernels[0]] for b in (1, 7)]
    threads = [runs[7, t, kernels[0]] for t in (1, 2)]
    for name, (a, b) in {"batches of 1 and 7": batches, "1 and 2 threads": threads}.items():
        agree = {what: a[i] == b[i] for i, what in enumerate(["logits", "probabilities", "draws"], 2)}
        print(f"PyTorch {torch.__version__}, {name}: {agree}")
        # What differs comes with the logits.
        assert not agree["logits"] or (agree["probabilities"] and agree["draws"])
