"""Softmax and its relatives for NumPy and PyTorch: accurate, fast, the same bits on every CPU."""

try:
    from softmax._softmax import (
        MergedRow,
        OnlineSoftmax,
        Sampler,
        Shards,
        SpeculativeSampler,
        argmax,
        argmax_ragged,
        attention_softmax,
        cross_entropy,
        cross_entropy_ragged,
        cross_entropy_with_grad,
        cross_entropy_with_grad_ragged,
        entropy,
        entropy_backward,
        hardmax,
        info,
        kernels,
        kl_divergence,
        kl_divergence_backward,
        log_probs,
        log_sigmoid,
        log_softmax,
        log_softmax_ragged,
        logsumexp,
        logsumexp_ragged,
        merge_outputs,
        perplexity,
        plan,
        release_scratch,
        route,
        sigmoid,
        softmax,
        softmax_backward,
        softmax_backward_ragged,
        softmax_ragged,
        top_k,
    )
except ModuleNotFoundError:
    raise ImportError(
        "the folder softmax here is source that is not built: pip install ./python, then run Python in another folder"
    ) from None

__version__ = info()["version"]

TYPE_CHECKING = False  # Type checkers take it for True; the module typing takes long to import.
if not TYPE_CHECKING:

    def __getattr__(name):
        # softmax.special and softmax.torch need not be imported by themselves.
        if name in ("special", "torch"):
            from importlib import import_module

            return import_module(f"softmax.{name}")
        raise AttributeError(f"module 'softmax' has no attribute '{name}'")


__all__ = [
    "MergedRow",
    "OnlineSoftmax",
    "Sampler",
    "Shards",
    "SpeculativeSampler",
    "argmax",
    "argmax_ragged",
    "attention_softmax",
    "cross_entropy",
    "cross_entropy_ragged",
    "cross_entropy_with_grad",
    "cross_entropy_with_grad_ragged",
    "entropy",
    "entropy_backward",
    "hardmax",
    "info",
    "kernels",
    "kl_divergence",
    "kl_divergence_backward",
    "log_probs",
    "log_sigmoid",
    "log_softmax",
    "log_softmax_ragged",
    "logsumexp",
    "logsumexp_ragged",
    "merge_outputs",
    "perplexity",
    "plan",
    "release_scratch",
    "route",
    "sigmoid",
    "softmax",
    "softmax_backward",
    "softmax_backward_ragged",
    "softmax_ragged",
    "top_k",
]
