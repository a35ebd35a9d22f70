//! The command `softmax`.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the command with its name and arguments, and gives its exit status.
#[pyfunction]
#[pyo3(name = "_command")]
pub fn command(py: Python, arguments: Vec<OsString>) -> u8 {
    py.detach(|| softmax_cli::run(arguments))
}
