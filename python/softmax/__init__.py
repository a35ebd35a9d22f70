"""Softmax and its relatives for NumPy and PyTorch: accurate, fast, the same bits on every CPU."""

from softmax._softmax import (
    MergedRow,
    Sampler,
    Shards,
    argmax,
    attention_softmax,
    cross_entropy,
    cross_entropy_with_grad,
    hardmax,
    info,
    kernels,
    log_probs,
    log_sigmoid,
    log_softmax,
    logsumexp,
    perplexity,
    plan,
    release_scratch,
    sigmoid,
    softmax,
    top_k,
)

__version__ = info()["version"]

__all__ = [
    "MergedRow",
    "Sampler",
    "Shards",
    "argmax",
    "attention_softmax",
    "cross_entropy",
    "cross_entropy_with_grad",
    "hardmax",
    "info",
    "kernels",
    "log_probs",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "perplexity",
    "plan",
    "release_scratch",
    "sigmoid",
    "softmax",
    "top_k",
]
