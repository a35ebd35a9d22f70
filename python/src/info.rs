//! What this machine has, and which way a call takes.

use ::softmax::{Caches, Exec, Op, Shape, Ties};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::array::typed;
use crate::attention::dtype_of;
use crate::options::{Along, Arg, count, exec, flag, one_of, raised};
use crate::reduce::reduced;

/// The names of the kernels that this CPU can run, the fastest first.
#[pyfunction]
pub fn kernels() -> Vec<&'static str> {
    ::softmax::kernels().iter().filter(|k| k.is_available()).map(::softmax::Kernel::name).collect()
}

/// The version, the kernels and what each needs, the caches and the number of threads.
#[pyfunction]
pub fn info(py: Python) -> PyResult<Bound<PyDict>> {
    let info = PyDict::new(py);
    info.set_item("version", env!("CARGO_PKG_VERSION"))?;
    info.set_item("kernel", ::softmax::default_kernel().map_err(raised)?.name())?;
    let kernels = PyList::empty(py);
    for kernel in ::softmax::kernels() {
        let one = PyDict::new(py);
        one.set_item("name", kernel.name())?;
        one.set_item("requires", kernel.requires().to_vec())?;
        one.set_item("available", kernel.is_available())?;
        kernels.append(one)?;
    }
    info.set_item("kernels", kernels)?;
    let caches = Caches::of_this_machine().map_err(raised)?;
    info.set_item("cache_core", caches.core())?;
    info.set_item("cache_last", caches.last())?;
    info.set_item("threads", std::thread::available_parallelism().map_or(1, |n| n.get()))?;
    Ok(info)
}

#[derive(Clone, Copy)]
pub struct OpOf(Op);

impl<'py> FromPyObject<'_, 'py> for OpOf {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let names = [
            ("softmax", Op::Softmax),
            ("log_softmax", Op::LogSoftmax),
            ("logsumexp", Op::LogSumExp),
            ("sigmoid", Op::Sigmoid),
            ("log_sigmoid", Op::LogSigmoid),
            ("hardmax", Op::Hardmax(Ties::Share)),
        ];
        one_of(&x, "op", &names).map(Self)
    }
}

/// Which way a call on an array of a shape takes, along its last axis: the kernel, the number of
/// threads, whether the output is written past the caches, and in words, why.
#[pyfunction]
#[pyo3(signature = (shape, dtype=None, op=OpOf(Op::Softmax), *, in_place=None, threads=None, kernel=None),
    text_signature = "(shape, dtype='float32', op='softmax', *, in_place=False, threads=None, kernel=None)")]
pub fn plan<'py>(
    py: Python<'py>,
    shape: Vec<Bound<'py, PyAny>>,
    dtype: Option<&Bound<'py, PyAny>>,
    op: OpOf,
    in_place: Arg<'_, 'py>,
    threads: Arg<'_, 'py>,
    kernel: Option<&str>,
) -> PyResult<Bound<'py, PyDict>> {
    let shape = shape.iter().map(|n| Ok(count(Some(n), "a size")?.unwrap_or(0)));
    let shape = shape.collect::<PyResult<Vec<_>>>()?;
    let cols = shape.last().copied().unwrap_or(1);
    let outer = reduced(&shape, &Along::Last.of(shape.len())?, false);
    let rows = outer.iter().try_fold(1usize, |n, &m| n.checked_mul(m));
    let rows = rows.ok_or_else(|| PyValueError::new_err("shape has too many elements"))?;
    let shape = Shape::new(rows, cols);
    let shape = if flag(in_place, "in_place")? { shape.in_place() } else { shape };
    let exec: Exec = exec(threads, kernel)?;
    let dtype = dtype.map_or(Ok(crate::array::Dtype::F32), dtype_of)?;
    let plan = typed!(dtype, T => exec.plan::<T>(op.0, shape).map_err(raised))?;
    let dict = PyDict::new(py);
    dict.set_item("kernel", plan.kernel().name())?;
    dict.set_item("regime", format!("{:?}", plan.regime()).to_lowercase())?;
    dict.set_item("streams", plan.streams())?;
    dict.set_item("threads", plan.threads())?;
    dict.set_item("text", plan.to_string())?;
    Ok(dict)
}

/// Frees the memory that threads keep for their next call.
#[pyfunction]
pub fn release_scratch(py: Python) {
    py.detach(::softmax::release_scratch);
}
