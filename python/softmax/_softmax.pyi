from collections.abc import Iterable, Sequence
from typing import Any, Literal, SupportsIndex, TypeAlias, TypedDict, final, type_check_only

import numpy
from numpy.typing import ArrayLike, NDArray
from typing_extensions import Self

# Arrays are `Any`: tensors come out as tensors, arrays as arrays, lists as arrays, and none of their
# packages has to be there for a type checker.
_Axis: TypeAlias = SupportsIndex | tuple[SupportsIndex, ...] | None
_Masked: TypeAlias = Literal["nan", "zero"]
_Reduction: TypeAlias = Literal["mean", "sum", "none"]

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
    "_command",
]

@type_check_only
class _Kernel(TypedDict):
    name: str
    requires: list[str]
    available: bool

@type_check_only
class _Info(TypedDict):
    version: str
    kernel: str
    kernels: list[_Kernel]
    cache_core: int
    cache_last: int
    threads: int

@type_check_only
class _Plan(TypedDict):
    kernel: str
    regime: str
    streams: bool
    threads: int
    text: str

def softmax(
    x: Any,
    axis: _Axis = -1,
    *,
    scale: float | ArrayLike | None = None,
    temperature: float | ArrayLike | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    masked: _Masked = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def log_softmax(
    x: Any,
    axis: _Axis = -1,
    *,
    scale: float | ArrayLike | None = None,
    temperature: float | ArrayLike | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    masked: _Masked = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def entropy(
    x: Any,
    axis: _Axis = -1,
    keepdims: bool = False,
    *,
    scale: float | ArrayLike | None = None,
    temperature: float | ArrayLike | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    masked: Literal["nan", "zero"] = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def kl_divergence(
    p_logits: Any,
    q_logits: Any,
    axis: _Axis = -1,
    keepdims: bool = False,
    *,
    scale: float | None = None,
    temperature: float | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    masked: Literal["nan", "zero"] = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def logsumexp(
    x: Any,
    axis: _Axis = -1,
    keepdims: bool = False,
    *,
    weights: Any = None,
    scale: float | ArrayLike | None = None,
    temperature: float | ArrayLike | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def sigmoid(
    x: Any,
    *,
    scale: float | None = None,
    temperature: float | None = None,
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def log_sigmoid(
    x: Any,
    *,
    scale: float | None = None,
    temperature: float | None = None,
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def hardmax(
    x: Any,
    axis: _Axis = -1,
    *,
    ties: Literal["share", "first"] = "share",
    masked: _Masked = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def argmax(
    x: Any, axis: _Axis = -1, keepdims: bool = False, *, threads: SupportsIndex | None = None, kernel: str | None = None
) -> Any: ...
def top_k(
    x: Any,
    k: SupportsIndex,
    axis: _Axis = -1,
    *,
    values: Literal["probs", "log_probs", "logits"] = "probs",
    scale: float | None = None,
    temperature: float | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    masked: _Masked = "nan",
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> tuple[Any, Any]: ...
def route(
    logits: Any,
    k: SupportsIndex,
    *,
    scoring: Literal["softmax", "sigmoid"] = "softmax",
    bias: Any = None,
    groups: SupportsIndex | None = None,
    group_limit: SupportsIndex | None = None,
    group_score: Literal["top_two", "largest"] = "top_two",
    renormalize: bool = False,
    scaling_factor: float = 1.0,
    masked: _Masked = "nan",
    out: tuple[Any, Any] | None = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> tuple[Any, Any]: ...
def cross_entropy(
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: SupportsIndex = -100,
    reduction: _Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    *,
    axis: SupportsIndex | None = None,
    divergence: bool = False,
    scale: float | None = None,
    temperature: float | None = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def cross_entropy_with_grad(
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: SupportsIndex = -100,
    reduction: _Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    *,
    axis: SupportsIndex | None = None,
    divergence: bool = False,
    scale: float | None = None,
    temperature: float | None = None,
    row_factors: Any = None,
    gradient_factor: float = 1.0,
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> tuple[Any, Any]: ...
def softmax_backward(
    y: Any,
    grad: Any,
    axis: _Axis = -1,
    *,
    log: bool = False,
    scale: float | None = None,
    temperature: float | None = None,
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def entropy_backward(
    x: Any,
    upstream: Any,
    axis: _Axis = -1,
    *,
    scale: float | ArrayLike | None = None,
    temperature: float | ArrayLike | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    masked: _Masked = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def kl_divergence_backward(
    p_logits: Any,
    q_logits: Any,
    upstream: Any,
    axis: _Axis = -1,
    *,
    scale: float | None = None,
    temperature: float | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    masked: _Masked = "nan",
    out: tuple[Any, Any] | None = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> tuple[Any, Any]: ...
def log_probs(
    logits: Any,
    tokens: Any,
    *,
    scale: float | None = None,
    temperature: float | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    masked: _Masked = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def perplexity(log_probs: Any) -> float: ...
def attention_softmax(
    scores: Any,
    *,
    causal: bool = False,
    window: SupportsIndex | None = None,
    window_ahead: SupportsIndex | None = None,
    offset: SupportsIndex | None = None,
    mask: Any = None,
    bitmask: Any = None,
    hidden_from: SupportsIndex | None = None,
    mask_slopes: Any = None,
    alibi: Any = None,
    soft_cap: float | None = None,
    sinks: Any = None,
    lengths: Any = None,
    lse: bool = False,
    scale: float | None = None,
    temperature: float | None = None,
    masked: _Masked = "nan",
    dtype: Any = None,
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def merge_outputs(outputs: Any, logsumexps: Any, *, masked: _Masked = "nan") -> tuple[Any, Any]: ...
def kernels() -> list[str]: ...
def info() -> _Info: ...
def plan(
    shape: Sequence[SupportsIndex],
    dtype: Any = "float32",
    op: Literal["softmax", "log_softmax", "logsumexp", "sigmoid", "log_sigmoid", "hardmax"] = "softmax",
    *,
    in_place: bool = False,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> _Plan: ...
def release_scratch() -> None: ...
def _command(arguments: Sequence[str]) -> int: ...

def softmax_ragged(
    x: Any,
    offsets: Any,
    *,
    scale: float | None = None,
    temperature: float | None = None,
    masked: _Masked = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def log_softmax_ragged(
    x: Any,
    offsets: Any,
    *,
    scale: float | None = None,
    temperature: float | None = None,
    masked: _Masked = "nan",
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def logsumexp_ragged(
    x: Any,
    offsets: Any,
    *,
    scale: float | None = None,
    temperature: float | None = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def cross_entropy_ragged(
    logits: Any,
    offsets: Any,
    target: Any,
    weight: Any = None,
    ignore_index: SupportsIndex = -100,
    reduction: _Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    *,
    divergence: bool = False,
    scale: float | None = None,
    temperature: float | None = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def cross_entropy_with_grad_ragged(
    logits: Any,
    offsets: Any,
    target: Any,
    weight: Any = None,
    ignore_index: SupportsIndex = -100,
    reduction: _Reduction = "mean",
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    *,
    divergence: bool = False,
    scale: float | None = None,
    temperature: float | None = None,
    row_factors: Any = None,
    gradient_factor: float = 1.0,
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> tuple[Any, Any]: ...
def softmax_backward_ragged(
    y: Any,
    grad: Any,
    offsets: Any,
    *,
    log: bool = False,
    scale: float | None = None,
    temperature: float | None = None,
    out: Any = None,
    threads: SupportsIndex | None = None,
    kernel: str | None = None,
) -> Any: ...
def argmax_ragged(
    x: Any, offsets: Any, *, threads: SupportsIndex | None = None, kernel: str | None = None
) -> Any: ...

@final
class OnlineSoftmax:
    def __new__(
        cls,
        shape: Iterable[SupportsIndex],
        *,
        causal: bool = False,
        window: SupportsIndex | None = None,
        window_ahead: SupportsIndex | None = None,
        offset: SupportsIndex | None = None,
        mask: Any = None,
        bitmask: Any = None,
        hidden_from: SupportsIndex | None = None,
        mask_slopes: Any = None,
        alibi: Any = None,
        soft_cap: float | None = None,
        sinks: Any = None,
        lengths: Any = None,
        scale: float | None = None,
        temperature: float | None = None,
        masked: _Masked = "nan",
        kernel: str | None = None,
    ) -> Self: ...
    def tile(
        self,
        scores: Any,
        first_query: SupportsIndex = 0,
        first_key: SupportsIndex = 0,
        *,
        dtype: Any = None,
        out: Any = None,
    ) -> tuple[Any, Any]: ...
    def finish(self) -> tuple[Any, Any]: ...
    def merge(self, other: OnlineSoftmax | ArrayLike) -> tuple[Any, Any]: ...
    def to_array(self) -> NDArray[numpy.float64]: ...

@final
class Sampler:
    def __new__(
        cls,
        seed: SupportsIndex | ArrayLike = 0,
        *,
        temperature: float | ArrayLike = 1.0,
        top_k: SupportsIndex | ArrayLike = 0,
        top_p: float | ArrayLike = 1.0,
        min_p: float | ArrayLike = 0.0,
        typical_p: float | ArrayLike = 1.0,
        order: Literal["transformers", "llama.cpp"] = "transformers",
        method: Literal["inverse_cdf", "gumbel_max"] = "inverse_cdf",
        bias: dict[int, float] | None = None,
        repetition_penalty: float = 1.0,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        threads: SupportsIndex | None = None,
        kernel: str | None = None,
    ) -> Self: ...
    def sample(
        self,
        logits: Any,
        draws: SupportsIndex | None = None,
        *,
        step: SupportsIndex | ArrayLike = 0,
        first_row: SupportsIndex = 0,
        history: Sequence[Any] | None = None,
        mask: Any = None,
        bitmask: Any = None,
        hidden_from: SupportsIndex | None = None,
    ) -> Any: ...

@final
class SpeculativeSampler:
    def __new__(
        cls,
        seed: SupportsIndex = 0,
        *,
        temperature: float = 1.0,
        threads: SupportsIndex | None = None,
        kernel: str | None = None,
    ) -> Self: ...
    def verify(
        self,
        target: Any,
        drafted: Any,
        draft: Any = None,
        *,
        offsets: Any = None,
        target_probs: bool = False,
        draft_probs: bool = False,
        step: SupportsIndex = 0,
        first_row: SupportsIndex = 0,
        seeds: Iterable[SupportsIndex] | None = None,
        steps: Iterable[SupportsIndex] | None = None,
        temperatures: Iterable[float] | None = None,
    ) -> tuple[Any, Any]: ...

@final
class MergedRow:
    def to_partial(self) -> NDArray[numpy.float64]: ...

@final
class Shards:
    def __new__(
        cls,
        *,
        scale: float | None = None,
        temperature: float | None = None,
        masked: _Masked = "nan",
        kernel: str | None = None,
    ) -> Self: ...
    def partials(self, x: Any, row_max: float | None = None) -> NDArray[numpy.float64]: ...
    def merge(self, partials: ArrayLike, dtype: Any = "float32") -> MergedRow | float: ...
    def softmax(self, row: MergedRow, x: Any, *, out: Any = None) -> Any: ...
    def log_softmax(self, row: MergedRow, x: Any, *, out: Any = None) -> Any: ...
    def logsumexp(self, row: MergedRow) -> float: ...
