"""Arguments that are neither plain NumPy arrays nor tensors, made into what Rust can read."""

import numpy

# What the library computes with. bfloat16 is a type of the package ml_dtypes, which whoever has
# such an array has imported.
_FLOATS = {"float16", "bfloat16", "float32", "float64"}

# DLPack's numbers of devices whose memory the CPU reads: its own, and what CUDA or ROCm pinned.
_CPU = {1, 3, 11}


def empty(shape, dtype):
    return numpy.empty(shape, dtype)


def dtype_of(name):
    if name == "bfloat16":
        import ml_dtypes

        return numpy.dtype(ml_dtypes.bfloat16)
    return numpy.dtype(name)


def overlap(x, y):
    try:
        return numpy.shares_memory(x, y, max_work=10_000)
    except numpy.exceptions.TooHardError:
        return True


def _name(x):
    kind = type(x)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _view(x, name):
    """A NumPy array of the memory of `x`, and what makes a result an array like `x`."""
    if isinstance(x, numpy.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be ignored: give x.filled(-numpy.inf)")
    if isinstance(x, numpy.ndarray):
        return x.view(numpy.ndarray), None
    wrap = None
    if hasattr(x, "__dlpack_device__"):
        device, number = x.__dlpack_device__()
        if device not in _CPU:
            raise TypeError(
                f"{name} is a {_name(x)} on device {int(device)}:{number} of DLPack, and softmax works on the CPU"
            )
        if hasattr(x, "__array_namespace__") and not isinstance(x, numpy.generic):
            space = x.__array_namespace__()
            wrap = space.from_dlpack if hasattr(space, "from_dlpack") else space.asarray
            if getattr(x.dtype, "name", "") == "bfloat16":
                wrap = space.asarray  # DLPack of NumPy has none.
    if wrap is None and hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        try:
            return numpy.from_dlpack(x), None
        except (BufferError, RuntimeError) as e:
            raise TypeError(f"{name}, a {_name(x)}, cannot be read: {e}") from None
    if isinstance(x, (str, bytes)):
        raise TypeError(f"{name} must be an array of numbers, not {_name(x)}")
    try:
        return numpy.asarray(x), wrap
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from None


def _readable(array):
    """Bytes in this machine's order, and aligned elements; copied if they are not."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        array = array.copy()
    return array if type(array) is numpy.ndarray else array.view(numpy.ndarray)


def to_array(x, name):
    array, wrap = _view(x, name)
    if array.dtype.kind in "iub":
        array = array.astype(numpy.float64)
    elif array.dtype.name not in _FLOATS:
        raise TypeError(
            f"{name} has elements of type {array.dtype.name}: softmax has float32, float64, float16 and bfloat16"
        )
    return _readable(array), wrap


def to_labels(x, name):
    array, wrap = _view(x, name)
    if array.size == 0 and array.dtype == numpy.float64 and isinstance(x, (list, tuple)):
        array = array.astype(numpy.int64)  # The type that NumPy gives an empty list is nobody's wish.
    elif array.dtype.kind == "u" and array.itemsize == 8 and array.size and array.max() > numpy.iinfo(numpy.int64).max:
        raise ValueError(f"{name} has {array.max()}, which is too large")
    elif array.dtype.kind in "iu":
        array = array.astype(numpy.int64, copy=False)
    elif array.dtype.kind != "b" and array.dtype.name not in _FLOATS:
        raise TypeError(f"{name} has elements of type {array.dtype.name}")
    return _readable(array), wrap


def to_output(out):
    """A view of memory that can be written, or why there is none."""
    if isinstance(out, (list, tuple, int, float, str, bytes)):
        raise TypeError(f"out must be an array or a tensor, not {_name(out)}")
    if isinstance(out, numpy.ndarray):
        array = out
        if isinstance(out, numpy.ma.MaskedArray):
            raise TypeError("out is a masked array, whose mask would be ignored")
        array = out.view(numpy.ndarray)
    elif hasattr(out, "__dlpack__"):
        device, number = out.__dlpack_device__()
        if device not in _CPU:
            raise TypeError(
                f"out is a {_name(out)} on device {int(device)}:{number} of DLPack, and softmax works on the CPU"
            )
        try:
            array = numpy.from_dlpack(out)
        except (BufferError, RuntimeError) as e:
            raise TypeError(f"out, a {_name(out)}, cannot be written: {e}") from None
    else:
        try:
            array = numpy.asarray(memoryview(out))
        except TypeError:
            raise TypeError(f"out must be an array or a tensor, not {_name(out)}") from None
    dtype = array.dtype
    if dtype.name not in _FLOATS and dtype.name != "int64":
        raise TypeError(f"out has elements of type {dtype.name}")
    if not dtype.isnative:
        raise ValueError("out has bytes in the order of other machines")
    if not array.flags.aligned or any(stride % dtype.itemsize for stride in array.strides):
        raise ValueError("out is not aligned to its elements")
    return array
