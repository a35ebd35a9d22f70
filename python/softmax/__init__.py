"""Softmax and its relatives for NumPy and PyTorch: accurate, fast, the same bits on every CPU."""

try:
    import softmax._softmax
except ModuleNotFoundError:
    raise ImportError(
        "the folder softmax here is source that is not built: pip install ./python, then run Python in another folder"
    ) from None

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
    softmax_backward,
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
    "softmax_backward",
    "top_k",
]
