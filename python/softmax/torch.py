"""PyTorch's softmax, log_softmax, logsumexp and cross_entropy, with gradients; and models that run
with them unchanged.

    from softmax.torch import softmax, log_softmax, logsumexp, cross_entropy   # as in torch and F

    with softmax.torch.patch():
        model(tokens)

On the CPU, in float32, float64, float16 and bfloat16; everything else is refused by name. Gradients of
gradients are right: they are PyTorch's own.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import FunctionType

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from softmax import _softmax as _s

__all__ = [
    "cross_entropy",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "patch",
    "scaled_dot_product_attention",
    "softmax",
]

_TYPES = {torch.float32, torch.float64, torch.float16, torch.bfloat16}


def _again(f, x, grad):
    """The gradient of `f` at `x` by PyTorch's own functions, which have further gradients."""
    with torch._C.DisableTorchFunction(), torch.enable_grad():
        return torch.autograd.grad(f(x), x, grad, create_graph=True)[0]


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(x, dim, masked):
        return _s.softmax(x.detach(), dim, masked=masked)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.dim, ctx.masked = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            theirs = torch._safe_softmax if ctx.masked == "zero" else torch.softmax
            return _again(lambda x: theirs(x, ctx.dim), x, grad), None, None
        return _s.softmax_backward(y, grad, ctx.dim), None, None


class _LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(x, dim):
        return _s.log_softmax(x.detach(), dim)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.dim = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx, grad):
        x, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(lambda x: torch.log_softmax(x, ctx.dim), x, grad), None
        return _s.softmax_backward(y, grad, ctx.dim, log=True), None


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(x, dim, keepdim):
        return _s.logsumexp(x.detach(), dim, keepdim)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, ctx.dim, ctx.keepdim = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            dims = tuple(range(x.dim())) if ctx.dim is None else ctx.dim
            return _again(lambda x: torch.logsumexp(x, dims, ctx.keepdim), x, grad), None, None
        # Where every element is -inf PyTorch's gradient is 0, too.
        y = _s.softmax(x, ctx.dim, masked="zero")
        if not ctx.keepdim and x.dim():
            every = range(x.dim())
            dims = every if ctx.dim is None else [ctx.dim] if isinstance(ctx.dim, int) else ctx.dim
            for dim in sorted(d % x.dim() for d in dims):
                grad = grad.unsqueeze(dim)
        return y.mul_(grad), None, None


class _LogSigmoid(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return _s.log_sigmoid(x.detach())

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(F.logsigmoid, x, grad)
        return _s.sigmoid(x, scale=-1.0).mul_(grad)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(x, target, options):
        return _s.cross_entropy(x.detach(), target.detach(), **options)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, target, ctx.options = inputs
        ctx.save_for_backward(x, target)

    @staticmethod
    def backward(ctx, grad):
        x, target = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _again(lambda x: F.cross_entropy(x, target, **ctx.options), x, grad), None, None
        if ctx.options["reduction"] == "none":
            factors = {"row_factors": grad.reshape(-1).double(), **ctx.options, "reduction": "sum"}
        else:
            factors = {"gradient_factor": grad.item(), **ctx.options}
        return _s.cross_entropy_with_grad(x, target, **factors)[1], None, None


def _dim(x, dim):
    """PyTorch's choice where there is none."""
    if dim is None:
        return 0 if x.dim() in (0, 1, 3) else 1
    return dim


def softmax(input, dim=None, dtype=None, *, masked="nan"):
    """torch.softmax. With `masked="zero"` rows of nothing but -inf become 0 instead of NaN."""
    x = input if dtype is None else input.to(dtype)
    dim = _dim(x, dim)
    if torch.is_grad_enabled() and x.requires_grad:
        return _Softmax.apply(x, dim, masked)
    return _s.softmax(x, dim, masked=masked)


def log_softmax(input, dim=None, dtype=None):
    """torch.log_softmax."""
    x = input if dtype is None else input.to(dtype)
    dim = _dim(x, dim)
    if torch.is_grad_enabled() and x.requires_grad:
        return _LogSoftmax.apply(x, dim)
    return _s.log_softmax(x, dim)


def logsumexp(input, dim, keepdim=False):
    """torch.logsumexp."""
    # No axes are all of them, in PyTorch.
    dim = dim if isinstance(dim, int) else tuple(dim) or None
    if torch.is_grad_enabled() and input.requires_grad:
        return _LogSumExp.apply(input, dim, keepdim)
    return _s.logsumexp(input, dim, keepdim)


def logsigmoid(input):
    """torch.nn.functional.logsigmoid."""
    if torch.is_grad_enabled() and input.requires_grad:
        return _LogSigmoid.apply(input)
    return _s.log_sigmoid(input)


def cross_entropy(
    input,
    target,
    weight=None,
    size_average=None,
    ignore_index=-100,
    reduce=None,
    reduction="mean",
    label_smoothing=0.0,
):
    """torch.nn.functional.cross_entropy. Targets that require grad are refused."""
    if size_average is not None or reduce is not None:
        raise ValueError("size_average and reduce are PyTorch's past: give reduction")
    if target.requires_grad and torch.is_grad_enabled():
        raise TypeError("target requires grad, which cross_entropy has no gradient for: give target.detach()")
    options = {
        "weight": weight,
        "ignore_index": ignore_index,
        "reduction": reduction,
        "label_smoothing": label_smoothing,
    }
    if target.is_floating_point() and target.dtype != input.dtype:
        target = target.to(input.dtype)
    if torch.is_grad_enabled() and input.requires_grad:
        return _CrossEntropy.apply(input, target, options)
    return _s.cross_entropy(input, target, **options)


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
):
    """torch.nn.functional.scaled_dot_product_attention with its softmax here: scores by PyTorch's
    matrix product, the softmax, and another product."""
    if enable_gqa:
        key = key.repeat_interleave(query.size(-3) // key.size(-3), -3)
        value = value.repeat_interleave(query.size(-3) // value.size(-3), -3)
    factor = query.size(-1) ** -0.5 if scale is None else scale
    if is_causal:
        if attn_mask is not None:
            raise RuntimeError(
                "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True"
            )
        attn_mask = torch.ones(query.size(-2), key.size(-2), dtype=torch.bool).tril()
    scores = (query * factor) @ key.mT
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, -torch.inf)
        else:
            scores = scores + attn_mask
    probs = softmax(scores, -1, masked="zero")
    if dropout_p > 0.0:
        probs = F.dropout(probs, dropout_p)
    return probs @ value


def _softmax_arguments(input, dim=None, *args, **kwargs):
    # F.softmax and nn.Softmax have `_stacklevel` in between; an int that is no type.
    args = [a for a in args if not isinstance(a, int)]
    kwargs.pop("_stacklevel", None)
    return (input, dim, *args), kwargs


def _run_softmax(*args, **kwargs):
    args, kwargs = _softmax_arguments(*args, **kwargs)
    return softmax(*args, **kwargs)


def _run_log_softmax(*args, **kwargs):
    args, kwargs = _softmax_arguments(*args, **kwargs)
    return log_softmax(*args, **kwargs)


_REPLACED = {
    "softmax": (_run_softmax, [F.softmax, torch.softmax, torch.Tensor.softmax, torch.special.softmax]),
    "log_softmax": (
        _run_log_softmax,
        [F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax, torch.special.log_softmax],
    ),
    "logsumexp": (logsumexp, [torch.logsumexp, torch.Tensor.logsumexp, torch.special.logsumexp]),
    "cross_entropy": (cross_entropy, [F.cross_entropy]),
    "scaled_dot_product_attention": (scaled_dot_product_attention, [F.scaled_dot_product_attention]),
}
_BY_FUNCTION = {f: (name, run) for name, (run, functions) in _REPLACED.items() for f in functions}


def _reason(name, args, kwargs):
    """Why a call is PyTorch's, or None."""
    if kwargs.get("out") is not None:
        return "it writes into out"
    tensors = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
    if not tensors:
        return "it has no tensor"
    for x in tensors:
        if x.device.type != "cpu":
            return f"a tensor is on {x.device}"
        if x.layout != torch.strided:
            return f"a tensor has layout {x.layout}"
    x = tensors[0]
    dtype = kwargs.get("dtype") or next((a for a in args[1:] if isinstance(a, torch.dtype)), None) or x.dtype
    if dtype not in _TYPES:
        return f"its type is {dtype}"
    if name == "cross_entropy":
        target = kwargs.get("target", args[1] if len(args) > 1 else None)
        if isinstance(target, torch.Tensor) and target.requires_grad and torch.is_grad_enabled():
            return "its target requires grad"
        if any(kwargs.get(old) is not None for old in ("size_average", "reduce")) or len(args) > 3:
            return "it has arguments of PyTorch's past"
        weight = kwargs.get("weight", args[2] if len(args) > 2 else None)
        if weight is not None and (weight < 0).any():
            return "a weight is negative"
    if name == "logsumexp" and any(isinstance(d, str) for d in (*args[1:], kwargs.get("dim"))):
        return "its axes have names"
    return None


class patch(TorchFunctionMode):
    """A context in which softmax, log_softmax, logsumexp, cross_entropy and the softmax of
    scaled_dot_product_attention run here, in a model that knows nothing of it.

    `calls` counts them by name. What is not on the CPU, or of another type, is left to PyTorch, and
    counted in `left` by name and reason; with `strict=True` it is refused.
    """

    def __init__(self, *, strict=False):
        super().__init__()
        self.strict = strict
        self.calls = Counter()
        self.left = Counter()
        self._composites = {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _BY_FUNCTION:
            return self._call(func, *args, **kwargs)
        return self._composite(func)(*args, **kwargs)

    def _call(self, func, *args, **kwargs):
        name, run = _BY_FUNCTION[func]
        reason = _reason(name, args, kwargs)
        if reason is None:
            self.calls[name] += 1
            return run(*args, **kwargs)
        if self.strict:
            raise TypeError(f"{name} is left to PyTorch here: {reason}")
        self.left[name, reason] += 1
        return func(*args, **kwargs)

    def _composite(self, func):
        """`func`; where it is one of F's own that calls others, as multi_head_attention_forward,
        a copy that calls these here. (No mode is active within a function that a mode was asked
        for.)"""
        if not isinstance(func, FunctionType) or func.__module__ != F.__name__:
            return func
        if func not in self._composites:
            ours = {
                f.__name__: partial(self._call, f)
                for f in (F.softmax, F.log_softmax, F.cross_entropy, F.scaled_dot_product_attention)
                if f.__name__ in func.__code__.co_names
            }
            copy = func
            if ours:
                names = {**func.__globals__, **ours}
                copy = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
                copy.__kwdefaults__ = func.__kwdefaults__
            self._composites[func] = copy
        return self._composites[func]
