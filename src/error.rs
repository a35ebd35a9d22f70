//! What can be wrong with a call.

use std::fmt;

use softmax_kernels::{AttendError, PickError, ShapeError};

/// Why a call was refused. Nothing was written, except where [`Error::Memory`] says so.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// A slice is not a matrix of the shape asked for.
    Shape(ShapeError),
    /// Input and output differ in shape.
    Mismatch {
        /// Rows and columns of the input.
        input: (usize, usize),
        /// Rows and columns of the output.
        output: (usize, usize),
    },
    /// Input and output differ in shape, as tensors of any number of dimensions.
    Shapes {
        /// The input's.
        input: Vec<usize>,
        /// The output's.
        output: Vec<usize>,
    },
    /// Options of attention do not fit the scores.
    Attention(AttendError),
    /// The tensor has no such axis.
    Axis {
        /// The axis asked for.
        axis: isize,
        /// Dimensions of the tensor.
        dims: usize,
    },
    /// There is not one partial for each block of a shard.
    Partials {
        /// Partials that there are.
        len: usize,
        /// Partials that the shard has.
        needed: usize,
    },
    /// The largest element of a row is not finite.
    RowMax(f64),
    /// A slice that goes with the rows has not the length that it needs.
    Length {
        /// What it is.
        what: &'static str,
        /// Its elements.
        len: usize,
        /// Elements needed.
        needed: usize,
    },
    /// An option is NaN or out of its range.
    Value {
        /// What it is.
        what: &'static str,
        /// What it was.
        value: f64,
        /// What it may be.
        range: &'static str,
    },
    /// The weight of a class is negative, infinite or NaN.
    Weight {
        /// The class.
        class: usize,
        /// Its weight.
        weight: f32,
    },
    /// A label or a token is no column of the row.
    Column {
        /// The row.
        row: usize,
        /// The label or token.
        index: i64,
        /// Columns of a row.
        cols: usize,
    },
    /// There is no memory for a row's exponentials. Of a call on several threads or in several
    /// tiles some rows may have been written.
    Memory {
        /// Elements of the row.
        elements: usize,
    },
    /// The scale is NaN, not positive, or out of range.
    Scale(f64),
    /// The temperature is NaN or below 0; or it is 0 or infinite, which only softmax and
    /// log-softmax of rows have a meaning for.
    Temperature(f64),
    /// The environment variable `SOFTMAX_CACHES` is not two sizes.
    Caches {
        /// What it is.
        value: String,
    },
    /// There is no kernel of that name.
    UnknownKernel {
        /// The name asked for.
        name: String,
    },
    /// The kernel exists, but this CPU lacks what it needs.
    UnavailableKernel {
        /// The name asked for.
        name: &'static str,
        /// The CPU features it needs.
        requires: &'static [&'static str],
    },
}

impl From<ShapeError> for Error {
    fn from(e: ShapeError) -> Self {
        Self::Shape(e)
    }
}

impl From<AttendError> for Error {
    fn from(e: AttendError) -> Self {
        Self::Attention(e)
    }
}

impl From<PickError> for Error {
    fn from(e: PickError) -> Self {
        match e {
            PickError::Length { what, len, needed } => Self::Length { what, len, needed },
            PickError::Value { what, value, range } => Self::Value { what, value, range },
            PickError::Column { row, index, cols } => {
                Self::Column { row, index: index.try_into().unwrap_or(i64::MAX), cols }
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape(e) => e.fmt(f),
            Self::Attention(e) => e.fmt(f),
            Self::Axis { axis, dims } => {
                write!(f, "there is no axis {axis} in a tensor of {dims} dimensions")
            }
            Self::Memory { elements } => {
                write!(f, "there is no memory for the exponentials of a row of {elements} elements")
            }
            Self::Length { what, len, needed } => {
                write!(f, "{needed} {what} are needed, got {len}")
            }
            Self::Value { what, value, range } => {
                write!(f, "the {what} must be {range}, got {value}")
            }
            Self::Weight { class, weight } => write!(
                f,
                "the weight of class {class} must be finite and not negative, got {weight}"
            ),
            Self::Column { row, index, cols } => {
                write!(f, "row {row}: {index} is none of its {cols} columns")
            }
            Self::Partials { len, needed } => {
                write!(f, "the shard has {needed} blocks, but there are {len} partials")
            }
            Self::RowMax(value) => {
                write!(f, "the row's largest element must be finite, got {value}")
            }
            Self::Mismatch { input: (rows, cols), output: (out_rows, out_cols) } => {
                write!(f, "the input is {rows} x {cols} but the output {out_rows} x {out_cols}")
            }
            Self::Shapes { input, output } => {
                write!(f, "the input's shape is {input:?} but the output's {output:?}")
            }
            Self::Scale(value) => write!(f, "the scale must be in 2^-60..=2^60, got {value}"),
            // The limits of those that have some.
            Self::Temperature(value @ (0.0 | f64::INFINITY)) => write!(
                f,
                "the temperature must be above 0 and finite for all but softmax and log-softmax of rows, got {value}"
            ),
            Self::Temperature(value) => {
                write!(f, "the temperature must be 0 or above, got {value}")
            }
            Self::Caches { value } => {
                write!(f, "SOFTMAX_CACHES must be two sizes like 2M,32M, got {value:?}")
            }
            Self::UnknownKernel { name } => {
                write!(f, "no kernel is called {name:?}; there is {}", list(|_| true))
            }
            Self::UnavailableKernel { name, requires } => write!(
                f,
                "the kernel {name} needs {}, which this CPU lacks; it has {}",
                requires.join(", "),
                list(softmax_kernels::Kernel::is_available)
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Shape(e) => Some(e),
            Self::Attention(e) => Some(e),
            _ => None,
        }
    }
}

/// The names of some kernels, for a message.
fn list(which: impl Fn(&softmax_kernels::Kernel) -> bool) -> String {
    let names: Vec<_> =
        softmax_kernels::all().iter().filter(|k| which(k)).map(|k| k.name()).collect();
    names.join(", ")
}
