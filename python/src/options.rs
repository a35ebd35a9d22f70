//! Arguments that many functions have, how calls are made with them, and what errors become.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::softmax::{Error, Exec, Masked, PerRow, Softmax, Threads};
use pyo3::exceptions::{PyMemoryError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyString, PyTuple};
use smallvec::smallvec;

use crate::array::{Sizes, tuple};

/// Elements from which on other Python threads may run meanwhile. Less is done within some
/// microseconds, and a thread that lets others run may wait five milliseconds for its turn.
const RELEASE: usize = 1 << 14;

/// Elements between two looks at whether Ctrl-C was pressed: some ten milliseconds of work.
pub const CHUNK: usize = 1 << 25;

/// What Python is told.
pub fn raised(e: Error) -> PyErr {
    match e {
        Error::Memory { .. } => PyMemoryError::new_err(e.to_string()),
        Error::Axis { axis, dims, .. } => axis_error(axis, dims),
        e => PyValueError::new_err(e.to_string()),
    }
}

/// NumPy's own, which is a ValueError and an IndexError, as PyTorch's is.
pub fn axis_error(axis: isize, dims: usize) -> PyErr {
    Python::attach(|py| {
        let class = py.import("numpy.exceptions").and_then(|m| m.getattr("AxisError"));
        match class.and_then(|class| class.call1((axis, dims))) {
            Ok(error) => PyErr::from_value(error),
            Err(e) => e,
        }
    })
}

/// An argument that may be missing.
pub type Arg<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// A number.
pub fn number(x: Arg, name: &str) -> PyResult<Option<f64>> {
    let Some(x) = x else { return Ok(None) };
    let number = x.extract().map_err(|_| {
        PyTypeError::new_err(format!("{name} must be a number, not {}", type_name(x)))
    });
    number.map(Some)
}

/// Yes or no. NumPy takes integers, too.
pub fn flag(x: Arg, name: &str) -> PyResult<bool> {
    let Some(x) = x else { return Ok(false) };
    match x.extract() {
        Ok(flag) => Ok(flag),
        Err(_) if x.is_instance_of::<PyInt>() => x.is_truthy(),
        Err(_) => Err(PyTypeError::new_err(format!("{name} must be a bool, not {}", type_name(x)))),
    }
}

/// An integer, which a float is not.
fn index<'py>(x: &Bound<'py, PyAny>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    x.call_method0(intern!(x.py(), "__index__")).map_err(|_| {
        PyTypeError::new_err(format!("{name} must be an integer, not {}", type_name(x)))
    })
}

/// A number of things, which cannot be negative.
pub fn count(x: Arg, name: &str) -> PyResult<Option<usize>> {
    let Some(x) = x else { return Ok(None) };
    if x.is_exact_instance_of::<PyInt>()
        && let Ok(n) = x.extract()
    {
        return Ok(Some(n));
    }
    let index = index(x, name)?;
    index.extract().map(Some).map_err(|_| {
        PyValueError::new_err(format!("{name} must be from 0 to {}, got {index}", usize::MAX))
    })
}

/// A whole number of either sign.
pub fn whole(x: Arg, name: &str) -> PyResult<Option<i64>> {
    let Some(x) = x else { return Ok(None) };
    let index = index(x, name)?;
    index
        .extract()
        .map(Some)
        .map_err(|_| PyValueError::new_err(format!("{name} must have 64 bits, got {index}")))
}

/// Two outputs, if they are given.
pub fn two_outputs<'py>(
    out: Arg<'_, 'py>,
) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
    let Some(out) = out else { return Ok(None) };
    out.extract().map(Some).map_err(|_| {
        let got = match out.cast::<PyTuple>() {
            Ok(tuple) => format!("a tuple of {}", tuple.len()),
            Err(_) => type_name(out),
        };
        PyTypeError::new_err(format!("out must be a tuple of two arrays, got {got}"))
    })
}

pub fn type_name(x: &Bound<PyAny>) -> String {
    x.get_type().qualname().map_or_else(|_| "?".into(), |name| name.to_string())
}

/// Along what: NumPy's `axis`.
#[derive(Clone)]
pub enum Along {
    Last,
    One(isize),
    Many(Vec<isize>),
    All,
}

impl<'py> FromPyObject<'_, 'py> for Along {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let one = |x: &Bound<PyAny>| -> PyResult<isize> {
            if x.is_exact_instance_of::<PyInt>()
                && let Ok(axis) = x.extract()
            {
                return Ok(axis);
            }
            let index = x.call_method0(intern!(x.py(), "__index__")).map_err(|_| {
                let name = type_name(x);
                PyTypeError::new_err(format!(
                    "axis must be an int, a tuple of them or None, not {name}"
                ))
            })?;
            index
                .extract()
                .map_err(|_| PyValueError::new_err(format!("axis {index} is out of bounds")))
        };
        if x.is_none() {
            return Ok(Self::All);
        }
        match x.cast::<PyTuple>() {
            Ok(axes) => axes.iter().map(|axis| one(&axis)).collect::<PyResult<_>>().map(Self::Many),
            Err(_) => one(&x).map(Self::One),
        }
    }
}

impl Along {
    /// The axes of an array, in their order. An array of no axes has one of one element.
    pub fn of(&self, dims: usize) -> PyResult<Sizes> {
        let known = dims.max(1);
        let index = |axis: isize| {
            let index = if axis < 0 { axis.checked_add_unsigned(known) } else { Some(axis) };
            let index = index.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < known);
            index.ok_or_else(|| axis_error(axis, dims))
        };
        match self {
            Self::Last => Ok(smallvec![known - 1]),
            Self::One(axis) => Ok(smallvec![index(*axis)?]),
            Self::Many(axes) => {
                let mut axes = axes.iter().map(|&axis| index(axis)).collect::<PyResult<Sizes>>()?;
                axes.sort_unstable();
                if axes.windows(2).any(|pair| pair[0] == pair[1]) {
                    return Err(PyValueError::new_err("duplicate value in axis"));
                }
                Ok(axes)
            }
            Self::All => Ok((0..known).collect()),
        }
    }
}

/// `masked="nan"` or `"zero"`.
#[derive(Clone, Copy, Default)]
pub struct MaskedRows(pub Masked);

impl<'py> FromPyObject<'_, 'py> for MaskedRows {
    type Error = PyErr;

    fn extract(x: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        one_of(&x, "masked", &[("nan", Masked::Nan), ("zero", Masked::Zero)]).map(Self)
    }
}

/// One of several names.
pub fn one_of<T: Copy>(x: &Bound<PyAny>, name: &str, names: &[(&str, T)]) -> PyResult<T> {
    let all = || names.iter().map(|(name, _)| format!("'{name}'")).collect::<Vec<_>>().join(" or ");
    let Ok(got) = x.extract::<&str>() else {
        return Err(PyTypeError::new_err(format!(
            "{name} must be {}, not {}",
            all(),
            type_name(x)
        )));
    };
    let found = names.iter().find(|(known, _)| *known == got);
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| PyValueError::new_err(format!("{name} must be {}, got '{got}'", all())))
}

/// What inputs are multiplied or divided by.
#[derive(Clone, Copy, Default)]
pub struct Factor {
    pub scale: Option<f64>,
    pub temperature: Option<f64>,
}

impl Factor {
    pub fn new(scale: Arg, temperature: Arg) -> PyResult<Self> {
        if scale.is_some() && temperature.is_some() {
            return Err(PyValueError::new_err("give scale or temperature, not both"));
        }
        Ok(Self {
            scale: number(scale, "scale")?,
            temperature: number(temperature, "temperature")?,
        })
    }
}

/// The numbers of a sequence that is given where one number could be, too.
pub fn numbers(x: &Bound<PyAny>, name: &str) -> PyResult<Vec<f64>> {
    let wrong = || {
        let of = type_name(x);
        PyTypeError::new_err(format!("{name} must be a number, or one for each row, not {of}"))
    };
    if x.is_instance_of::<PyString>() {
        return Err(wrong());
    }
    let numbers = x.try_iter().map_err(|_| wrong())?;
    numbers.map(|x| x?.extract().map_err(|_| wrong())).collect()
}

/// The error for a sequence that has not one element for each row of `x`.
pub fn not_one_a_row(name: &str, rows: usize, shape: &[usize], got: usize) -> PyErr {
    PyValueError::new_err(format!(
        "{name} must be one, or {rows} for rows of shape {}, got {got}",
        tuple(shape)
    ))
}

/// A scale or a temperature for each row.
pub struct RowFactors {
    list: Vec<f64>,
    name: &'static str,
}

impl RowFactors {
    /// What all rows are multiplied or divided by; or what each is.
    pub fn new(scale: Arg, temperature: Arg) -> PyResult<(Factor, Option<Self>)> {
        let error = match Factor::new(scale, temperature) {
            Ok(factor) => return Ok((factor, None)),
            Err(error) => error,
        };
        let (x, name) = match (scale, temperature) {
            (Some(scale), None) => (scale, "scale"),
            (None, Some(temperature)) => (temperature, "temperature"),
            _ => return Err(error),
        };
        Ok((Factor::default(), Some(Self { list: numbers(x, name)?, name })))
    }

    /// Checks that there is one for each row of arrays of a shape, along axes.
    pub fn check(&self, shape: &[usize], axes: &[usize]) -> PyResult<()> {
        let others = (0..shape.len()).filter(|axis| !axes.contains(axis));
        let rows = others.map(|axis| shape[axis]).product();
        if self.list.len() == rows {
            return Ok(());
        }
        Err(not_one_a_row(self.name, rows, shape, self.list.len()))
    }

    /// The operation on one of the rows.
    pub fn of_row<'a>(&self, op: Softmax<'a>, row: usize) -> Softmax<'a> {
        let factor = self.list[row];
        if self.name == "scale" { op.scale(factor) } else { op.temperature(factor) }
    }

    /// The operation on some of the rows.
    pub fn of_rows<'a>(&'a self, op: Softmax<'a>, first: usize, rows: usize) -> PerRow<'a> {
        let list = &self.list[first..first + rows];
        if self.name == "scale" { op.scales(list) } else { op.temperatures(list) }
    }
}

/// Sets scale or temperature of any operation that has them.
macro_rules! by_factor {
    ($operation:expr, $factor:expr) => {{
        let operation = $operation;
        match ($factor.scale, $factor.temperature) {
            (Some(scale), _) => operation.scale(scale),
            (_, Some(temperature)) => operation.temperature(temperature),
            _ => operation,
        }
    }};
}
pub(crate) use by_factor;

/// Where a call runs.
pub fn exec(threads: Arg, kernel: Option<&str>) -> PyResult<Exec<'static>> {
    let mut exec = Exec::new();
    if let Some(n) = count(threads, "threads")? {
        exec = exec.threads(match NonZeroUsize::new(n) {
            None => return Err(PyValueError::new_err("threads must be 1 or more, got 0")),
            Some(NonZeroUsize::MIN) => Threads::Serial,
            Some(n) => Threads::AtMost(n),
        });
    }
    if let Some(name) = kernel {
        exec = exec.kernel(::softmax::kernel(name).map_err(raised)?);
    }
    Ok(exec)
}

/// Does what takes so many elements, other Python threads running meanwhile if it is long.
pub fn run<R: Send>(
    py: Python,
    elements: usize,
    f: impl FnOnce() -> Result<R, Error> + Send,
) -> PyResult<R> {
    let guarded = || catch_unwind(AssertUnwindSafe(f));
    let done = if elements < RELEASE { guarded() } else { py.detach(guarded) };
    match done {
        Ok(result) => result.map_err(raised),
        Err(panic) => Err(panicked(&*panic)),
    }
}

/// A defect of the library, as an ordinary exception.
fn panicked(panic: &(dyn std::any::Any + Send)) -> PyErr {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
    PyRuntimeError::new_err(format!("a defect of softmax, please report it: {text}"))
}

/// As [`run`], of rows, with a look at signals between parts of long work. Parts never change what
/// a row becomes.
pub fn run_rows<W: Send>(
    py: Python,
    (rows, cols): (usize, usize),
    work: W,
    split: impl Fn(W, usize) -> (W, W),
    f: impl Fn(W) -> Result<(), Error> + Sync,
) -> PyResult<()> {
    let elements = rows.saturating_mul(cols);
    if elements <= CHUNK {
        return run(py, elements, || f(work));
    }
    let parts = ranges(rows, CHUNK / cols.max(1)).map(|part| (part.len(), ()));
    run_parts(py, elements, parts, work, split, |work, ()| f(work))
}

/// The ranges of `each` or fewer of `n`, at least one of each.
pub fn ranges(n: usize, each: usize) -> impl Iterator<Item = Range<usize>> {
    let each = each.max(1);
    (0..n).step_by(each).map(move |at| at..n.min(at.saturating_add(each)))
}

/// As [`run_rows`], in parts that are given, each by its number of rows and what `f` is to know.
pub fn run_parts<W: Send, P: Send>(
    py: Python,
    elements: usize,
    parts: impl Iterator<Item = (usize, P)>,
    work: W,
    split: impl Fn(W, usize) -> (W, W),
    f: impl Fn(W, P) -> Result<(), Error> + Sync,
) -> PyResult<()> {
    let (mut parts, mut rest) = (parts.peekable(), Some(work));
    while let (Some((rows, part)), Some(work)) = (parts.next(), rest.take()) {
        let now = if parts.peek().is_some() {
            let (now, later) = split(work, rows);
            rest = Some(later);
            now
        } else {
            work
        };
        run(py, elements, || f(now, part))?;
        py.check_signals()?;
    }
    Ok(())
}
