//! The module behind the Python package `softmax`: arrays of NumPy, PyTorch and others in, the same
//! out, computed by the crate `softmax`.

mod array;
mod options;
mod rows;
mod torch;

use pyo3::prelude::*;

/// What `softmax/__init__.py` passes on.
#[pymodule]
mod _softmax {
    #[pymodule_export]
    use crate::rows::{hardmax, log_sigmoid, log_softmax, sigmoid, softmax};
}
