"""Softmax and its relatives for NumPy and PyTorch: accurate, fast, the same bits on every CPU."""

from softmax._softmax import hardmax, log_sigmoid, log_softmax, sigmoid, softmax

__all__ = ["hardmax", "log_sigmoid", "log_softmax", "sigmoid", "softmax"]
