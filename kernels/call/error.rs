//! Why a call is refused.

use std::fmt;

/// Why a call was refused. Nothing was written, except where [`Error::Memory`] and [`Error::Room`]
/// say so.
///
/// ```
/// let error = softmax_kernels::Matrix::new(&[1.0f32; 6], 4).unwrap_err();
/// assert_eq!(error.to_string(), "the number of elements must be a multiple of 4, got 6");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The size of something does not fit that of something else.
    #[non_exhaustive]
    Shape {
        /// What has the size: the output, a number of elements.
        what: &'static str,
        /// What it must be.
        expected: Size,
        /// What it is.
        got: Size,
    },
    /// A number is NaN, or out of its range.
    #[non_exhaustive]
    Value {
        /// Which number: the temperature, a weight.
        what: &'static str,
        /// Its index, if there are several.
        index: Option<usize>,
        /// What it is.
        value: Number,
        /// What it must be.
        range: &'static str,
    },
    /// A label or a token is not a column of its row.
    #[non_exhaustive]
    Column {
        /// The row.
        row: usize,
        /// The label or token.
        index: i64,
        /// Columns of a row.
        cols: usize,
    },
    /// A tensor has no such axis.
    #[non_exhaustive]
    Axis {
        /// The axis asked for.
        axis: isize,
        /// Dimensions of the tensor.
        dims: usize,
    },
    /// Rows of a matrix overlap: its stride is less than its columns.
    #[non_exhaustive]
    Overlap {
        /// Elements of a row.
        cols: usize,
        /// Elements from the start of a row to the start of the next.
        stride: usize,
    },
    /// The number of elements does not fit `usize`.
    #[non_exhaustive]
    Overflow {
        /// Rows asked for.
        rows: usize,
        /// Elements of a row.
        cols: usize,
        /// Elements from the start of a row to the start of the next.
        stride: usize,
    },
    /// There is no memory for so many elements. If the call runs on several threads or in several
    /// tiles, some rows may have been written.
    #[non_exhaustive]
    Memory {
        /// The number of elements.
        elements: usize,
    },
    /// A row has more results than there is room for. The results of the rows that fit, and the
    /// counts of all rows, are written.
    #[non_exhaustive]
    Room {
        /// The first such row.
        row: usize,
        /// The number of its results.
        needed: usize,
        /// The number of results that each row has room for.
        room: usize,
    },
    /// The environment variable `SOFTMAX_CACHES` is not two sizes.
    #[non_exhaustive]
    Caches {
        /// What it is.
        value: String,
    },
    /// There is no kernel of that name.
    #[non_exhaustive]
    UnknownKernel {
        /// The name asked for.
        name: String,
        /// The names of all kernels, as a list.
        known: String,
    },
    /// The kernel exists, but this CPU lacks what it needs.
    #[non_exhaustive]
    UnavailableKernel {
        /// The name asked for.
        name: &'static str,
        /// The CPU features it needs.
        requires: &'static [&'static str],
        /// The names of the kernels that this CPU can run, as a list.
        available: String,
    },
}

/// A size in an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Size {
    /// So many.
    Count(usize),
    /// So many or more.
    AtLeast(usize),
    /// So many, or two times, three times as many, and so on.
    MultipleOf(usize),
    /// Rows and columns.
    Matrix(usize, usize),
    /// The sizes of all dimensions.
    Tensor(Box<[usize]>),
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => n.fmt(f),
            Self::AtLeast(n) => write!(f, "at least {n}"),
            Self::MultipleOf(n) => write!(f, "a multiple of {n}"),
            Self::Matrix(rows, cols) => write!(f, "{rows} x {cols}"),
            Self::Tensor(sizes) => write!(f, "{sizes:?}"),
        }
    }
}

/// A number in an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Number {
    /// Of any type of floating point.
    Float(f64),
    /// Of any type of integers.
    Integer(i128),
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<f32> for Number {
    fn from(value: f32) -> Self {
        Self::Float(value.into())
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Self {
        Self::Integer(value as i128)
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Integer(value.into())
    }
}

impl From<i128> for Number {
    fn from(value: i128) -> Self {
        Self::Integer(value)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::Integer(value.into())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape { what, expected, got } => {
                write!(f, "the {what} must be {expected}, got {got}")
            }
            Self::Value { what, index: None, value, range } => {
                write!(f, "the {what} must be {range}, got {value}")
            }
            Self::Value { what, index: Some(index), value, range } => {
                write!(f, "the {what} {index} must be {range}, got {value}")
            }
            Self::Column { row, index, cols } => {
                write!(f, "row {row}: {index} is not one of its {cols} columns")
            }
            Self::Axis { axis, dims } => {
                write!(f, "there is no axis {axis} in a tensor of {dims} dimensions")
            }
            Self::Overlap { cols, stride } => {
                write!(f, "rows of {cols} elements overlap at stride {stride}")
            }
            Self::Overflow { rows, cols, stride } => {
                write!(f, "{rows} rows of {cols} with stride {stride} overflow the address space")
            }
            Self::Memory { elements } => write!(f, "there is no memory for {elements} elements"),
            Self::Room { row, needed, room } => {
                write!(f, "row {row} needs room for {needed} results, got {room}")
            }
            Self::Caches { value } => {
                write!(f, "SOFTMAX_CACHES must be two sizes like 2M,32M, got {value:?}")
            }
            Self::UnknownKernel { name, known } => {
                write!(f, "no kernel is called {name:?}; there is {known}")
            }
            Self::UnavailableKernel { name, requires, available } => write!(
                f,
                "the kernel {name} needs {}, which this CPU lacks; it has {available}",
                requires.join(", ")
            ),
        }
    }
}

impl std::error::Error for Error {}

/// Constructors for the crates of this library: users make no errors.
impl Error {
    #[doc(hidden)]
    #[cold]
    pub fn axis(axis: isize, dims: usize) -> Self {
        Self::Axis { axis, dims }
    }

    #[doc(hidden)]
    #[cold]
    pub fn memory(elements: usize) -> Self {
        Self::Memory { elements }
    }

    #[doc(hidden)]
    #[cold]
    pub fn room(row: usize, needed: usize, room: usize) -> Self {
        Self::Room { row, needed, room }
    }

    #[doc(hidden)]
    #[cold]
    pub fn column(row: usize, index: impl TryInto<i64>, cols: usize) -> Self {
        Self::Column { row, index: index.try_into().unwrap_or(i64::MAX), cols }
    }

    #[doc(hidden)]
    #[cold]
    pub fn overflow(rows: usize, cols: usize, stride: usize) -> Self {
        Self::Overflow { rows, cols, stride }
    }

    #[doc(hidden)]
    #[cold]
    pub fn caches(value: String) -> Self {
        Self::Caches { value }
    }

    #[doc(hidden)]
    #[cold]
    pub fn unknown_kernel(name: String, known: String) -> Self {
        Self::UnknownKernel { name, known }
    }

    #[doc(hidden)]
    #[cold]
    pub fn unavailable_kernel(
        name: &'static str,
        requires: &'static [&'static str],
        available: String,
    ) -> Self {
        Self::UnavailableKernel { name, requires, available }
    }

    /// An error about two matrices of different shapes; the second one is `what`.
    #[doc(hidden)]
    #[cold]
    pub fn differ(
        what: &'static str,
        (rows, cols): (usize, usize),
        (got_rows, got_cols): (usize, usize),
    ) -> Self {
        Self::shape(what, Size::Matrix(rows, cols), Size::Matrix(got_rows, got_cols))
    }

    #[doc(hidden)]
    #[cold]
    pub fn shape(what: &'static str, expected: Size, got: Size) -> Self {
        Self::Shape { what, expected, got }
    }

    #[doc(hidden)]
    #[cold]
    pub fn count(what: &'static str, expected: usize, got: usize) -> Self {
        Self::shape(what, Size::Count(expected), Size::Count(got))
    }

    #[doc(hidden)]
    #[cold]
    pub fn value(what: &'static str, value: impl Into<Number>, range: &'static str) -> Self {
        Self::Value { what, index: None, value: value.into(), range }
    }

    #[doc(hidden)]
    #[cold]
    pub fn value_at(
        what: &'static str,
        index: usize,
        value: impl Into<Number>,
        range: &'static str,
    ) -> Self {
        Self::Value { what, index: Some(index), value: value.into(), range }
    }
}
