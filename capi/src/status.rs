//! The status that calls return.

use std::fmt;

use softmax::{Error, Size};

/// The status of a call. Unless it is `SOFTMAX_STATUS_OK`, nothing was written except a message;
/// but after `SOFTMAX_STATUS_MEMORY` and `SOFTMAX_STATUS_INTERNAL` some rows may have been written,
/// after `SOFTMAX_STATUS_AGAIN` the row's largest element, and after `SOFTMAX_STATUS_ROOM` all
/// counts and the rows that fit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum softmax_status {
    /// The call has done its work.
    Ok = 0,
    /// A pointer that must not be null is null.
    NullPointer = 1,
    /// The `size` of a struct is unknown to this library, or a newer field is set that it does not
    /// have.
    StructSize = 2,
    /// The dtype does not exist, or this call does not take it.
    Dtype = 3,
    /// Shapes do not fit each other.
    Shape = 4,
    /// Sizes overflow the address space.
    Overflow = 5,
    /// Rows of one matrix overlap: its stride is less than its columns.
    Stride = 6,
    /// An output overlaps something else.
    Overlap = 7,
    /// A pointer is not aligned as its type needs.
    Alignment = 8,
    /// An array does not have the required length.
    Length = 9,
    /// An option is out of its range.
    Value = 10,
    /// A label or token is not a column.
    Column = 11,
    /// The tensor has no such axis.
    Axis = 12,
    /// There is no memory.
    Memory = 13,
    /// The scratch buffer is too small.
    Scratch = 14,
    /// There is no such kernel, or this CPU cannot run it.
    Kernel = 15,
    /// The environment variable SOFTMAX_CACHES is not two sizes.
    Caches = 16,
    /// The partials have to be computed again, by the row's largest element: see `softmax_merge`.
    Again = 17,
    /// A row has more results than there is room for: the counts say how many.
    Room = 18,
    /// A bug in this library.
    Internal = 19,
}

use softmax_status as Status;

impl Status {
    const ALL: [(Self, &'static std::ffi::CStr); 20] = [
        (Self::Ok, c"all is done"),
        (Self::NullPointer, c"a pointer is null that must not be"),
        (Self::StructSize, c"the size of a struct is unknown to this library"),
        (Self::Dtype, c"there is no such dtype, or this call does not take it"),
        (Self::Shape, c"shapes do not fit each other"),
        (Self::Overflow, c"sizes overflow the address space"),
        (Self::Stride, c"rows of a matrix overlap: its stride is less than its columns"),
        (Self::Overlap, c"what is written overlaps something else"),
        (Self::Alignment, c"a pointer is not aligned as its type needs"),
        (Self::Length, c"an array has not the length that it needs"),
        (Self::Value, c"an option is out of its range"),
        (Self::Column, c"a label or token is not a column"),
        (Self::Axis, c"the tensor has no such axis"),
        (Self::Memory, c"there is no memory"),
        (Self::Scratch, c"the scratch buffer is too small"),
        (Self::Kernel, c"there is no such kernel, or this CPU cannot run it"),
        (Self::Caches, c"SOFTMAX_CACHES is not two sizes"),
        (Self::Again, c"the partials are to be computed again by the row's largest element"),
        (Self::Room, c"a row has more results than there is room for"),
        (Self::Internal, c"a bug in this library"),
    ];
}

/// The meaning of a status, in a few English words; never null, and valid as long as the library is
/// loaded. Other numbers have a text, too. (For what was wrong with a call, see
/// `softmax_options.message`.)
#[unsafe(no_mangle)]
pub extern "C" fn softmax_status_message(status: i32) -> *const std::ffi::c_char {
    let known = Status::ALL.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"no status of this library", |&(_, text)| text).as_ptr()
}

/// A boxed [`Reason`], so that results are returned in registers.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Box<Reason>);

impl<T: Into<Reason>> From<T> for Failure {
    #[cold]
    fn from(reason: T) -> Self {
        Self(Box::new(reason.into()))
    }
}

/// The reason why a call was refused.
#[derive(Debug)]
pub(crate) enum Reason {
    Crate(Error),
    Null(&'static str),
    StructSize {
        of: &'static str,
        size: usize,
    },
    Dtype {
        of: &'static str,
        dtype: u32,
    },
    Dtypes {
        of: &'static str,
        dtypes: (u32, u32),
    },
    Overlap(&'static str, &'static str),
    Alignment(&'static str),
    TooLarge(&'static str),
    Scratch {
        size: usize,
        needed: usize,
    },
    /// A choice that does not exist.
    Choice {
        of: &'static str,
        value: u32,
    },
    Flags {
        of: &'static str,
        flags: u32,
    },
    Name(Vec<u8>),
    /// A kernel number that does not exist among `len` kernels.
    NoKernel {
        index: usize,
        len: usize,
    },
    /// Both a scale and a temperature were given.
    Both(f64, f64),
    /// Two pointers, of which one must be null.
    OneOf(&'static str, &'static str),
    Stride {
        cols: usize,
        stride: usize,
    },
    Again(f64),
    /// Both an offset and one for each sequence.
    Offsets,
    /// A field of masks of bits, set for another one.
    OfBits(&'static str, usize),
    /// A feature that this library was not built with.
    Unknown(&'static str),
}

impl From<Error> for Reason {
    fn from(e: Error) -> Self {
        Self::Crate(e)
    }
}

impl Reason {
    pub(crate) fn status(&self) -> Status {
        match self {
            Self::Crate(e) => match e {
                Error::Shape { expected: Size::Count(_) | Size::AtLeast(_), .. } => Status::Length,
                Error::Shape { .. } => Status::Shape,
                Error::Value { .. } => Status::Value,
                Error::Overflow { .. } => Status::Overflow,
                Error::Overlap { .. } => Status::Stride,
                Error::Axis { .. } => Status::Axis,
                Error::Column { .. } => Status::Column,
                Error::Memory { .. } => Status::Memory,
                Error::Room { .. } => Status::Room,
                Error::Caches { .. } => Status::Caches,
                Error::UnknownKernel { .. } | Error::UnavailableKernel { .. } => Status::Kernel,
                _ => Status::Internal,
            },
            Self::Null(_) => Status::NullPointer,
            Self::StructSize { .. } => Status::StructSize,
            Self::Dtype { .. } | Self::Dtypes { .. } => Status::Dtype,
            Self::Overlap(..) => Status::Overlap,
            Self::Alignment(_) => Status::Alignment,
            Self::TooLarge(_) => Status::Overflow,
            Self::Scratch { .. } => Status::Scratch,
            Self::Choice { .. } | Self::Flags { .. } => Status::Value,
            Self::Name(_) => Status::Kernel,
            Self::NoKernel { .. } => Status::Length,
            Self::Both(..) | Self::OneOf(..) => Status::Value,
            Self::Stride { .. } => Status::Stride,
            Self::Again(_) => Status::Again,
            Self::Offsets | Self::OfBits(..) => Status::Value,
            Self::Unknown(_) => Status::Internal,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crate(e) => e.fmt(f),
            Self::Null(what) => write!(f, "{what} is null"),
            Self::StructSize { of, size } => {
                write!(f, "this library does not know all of a {of} of {size} bytes")
            }
            Self::Dtype { of, dtype } => write!(f, "{of} cannot have the dtype {dtype}"),
            Self::Dtypes { of, dtypes: (a, b) } => write!(f, "{of} have dtypes {a} and {b}"),
            Self::Overlap(a, b) => write!(f, "{a} overlaps {b}"),
            Self::Alignment(what) => write!(f, "{what} is not aligned"),
            Self::TooLarge(what) => write!(f, "{what} overflows the address space"),
            Self::Scratch { size, needed } => {
                write!(f, "{needed} bytes of scratch are needed, got {size}")
            }
            Self::Choice { of, value } => write!(f, "the {of} {value} does not exist"),
            Self::Flags { of, flags } => write!(f, "the flags {flags:#x} of {of} are unknown"),
            Self::Name(name) => {
                write!(f, "no kernel is called {:?}", String::from_utf8_lossy(name))
            }
            Self::NoKernel { index, len } => {
                write!(f, "there is no kernel number {index} among {len}")
            }
            Self::Both(scale, temperature) => write!(
                f,
                "one of scale and temperature must be 1, got scale {scale} and temperature {temperature}"
            ),
            Self::OneOf(a, b) => write!(f, "one of {a} and {b} must be null"),
            Self::Stride { cols, stride } => {
                write!(f, "rows of {cols} elements overlap at stride {stride}")
            }
            Self::Again(max) => {
                write!(f, "the partials are to be computed again by the largest element, {max}")
            }
            Self::Offsets => write!(f, "there are offsets, and the flag of one offset is set"),
            Self::OfBits(field, value) => {
                write!(f, "the {field} of a mask that is not of bits must be 0, got {value}")
            }
            Self::Unknown(what) => write!(f, "this library does not know {what}"),
        }
    }
}
