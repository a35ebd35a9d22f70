//! Conversions from arguments of C to values that Rust can borrow.

use std::ptr::NonNull;

use softmax::{Element, Matrix, MatrixMut};

use crate::status::{Failure, Reason};

/// The type of elements: one of `SOFTMAX_F32`, `SOFTMAX_F64`, `SOFTMAX_F16` and `SOFTMAX_BF16`; for
/// masks also `SOFTMAX_BOOL` and `SOFTMAX_BITS`.
pub type softmax_dtype = u32;

/// `float`.
pub const SOFTMAX_F32: softmax_dtype = 0;
/// `double`.
pub const SOFTMAX_F64: softmax_dtype = 1;
/// IEEE half precision, two bytes.
pub const SOFTMAX_F16: softmax_dtype = 2;
/// bfloat16, the upper half of a float.
pub const SOFTMAX_BF16: softmax_dtype = 3;
/// A byte, 0 or not 0. For masks only.
pub const SOFTMAX_BOOL: softmax_dtype = 4;
/// Bits in `uint32_t`, as grammar engines make them: element i of a row is seen where bit i % 32 of
/// its word i / 32 is set, least significant first. Each row starts at a word, and bits behind the
/// last element are ignored. For masks only.
pub const SOFTMAX_BITS: softmax_dtype = 5;

/// A matrix: `rows` rows of `cols` contiguous elements, with `stride` elements from the start of
/// one row to the start of the next. Elements between rows are neither read nor written, so others
/// may use them at the same time. `softmax_matrix_of` makes one to read, `softmax_matrix_mut` one
/// to write.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_matrix {
    /// `sizeof(softmax_matrix)`.
    pub size: usize,
    /// The first element of row 0. May be null if there are no elements.
    pub data: *mut std::ffi::c_void,
    /// The type of the elements.
    pub dtype: softmax_dtype,
    /// Number of rows.
    pub rows: usize,
    /// Elements in a row.
    pub cols: usize,
    /// Elements from one row to the next: `cols` or more.
    pub stride: usize,
}

/// Structs whose first field is their size in bytes.
///
/// # Safety
/// `repr(C)`, the first field is a `usize`, and all bit patterns are values.
pub(crate) unsafe trait Descriptor: Copy {
    /// The name in messages.
    const NAME: &'static str;
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_matrix {
    const NAME: &'static str = "softmax_matrix";
}

/// The largest size of a struct: a larger one was not initialised.
const LARGEST: usize = 4096;

/// Borrows a struct of this version, or of a later one whose additional fields are not set. (A copy
/// would have to wait for the caller's stores.)
///
/// # Safety
/// Null, or valid for reads of as many bytes as its first field says, while it is borrowed.
#[inline(always)]
pub(crate) unsafe fn read<'a, D: Descriptor>(p: *const D) -> Result<&'a D, Failure> {
    if p.is_null() {
        return Err(Reason::Null(D::NAME).into());
    }
    if !p.is_aligned() {
        return Err(Reason::Alignment(D::NAME).into());
    }
    // SAFETY: not null, aligned; its first field is its size.
    let size = unsafe { p.cast::<usize>().read() };
    if size != size_of::<D>() {
        // SAFETY: it has `size` bytes.
        unsafe { check_rest(p, size) }?;
    }
    // SAFETY: it has that many bytes, and any bytes are a value.
    Ok(unsafe { &*p })
}

/// Checks that this struct of another size can be read.
///
/// # Safety
/// `p` is valid for reads of `size` bytes.
#[cold]
unsafe fn check_rest<D: Descriptor>(p: *const D, size: usize) -> Result<(), Failure> {
    let (known, of) = (size_of::<D>(), D::NAME);
    if !(known..=LARGEST).contains(&size) {
        return Err(Reason::StructSize { of, size }.into());
    }
    // SAFETY: as this function's.
    let rest = unsafe { std::slice::from_raw_parts(p.cast::<u8>().add(known), size - known) };
    if rest.iter().any(|&byte| byte != 0) {
        return Err(Reason::StructSize { of, size }.into());
    }
    Ok(())
}

/// As [`read`]; `default` if it is null.
///
/// # Safety
/// As [`read`].
#[inline]
pub(crate) unsafe fn read_or<D: Descriptor>(p: *const D, default: &D) -> Result<&D, Failure> {
    // SAFETY: as this function's.
    if p.is_null() { Ok(default) } else { unsafe { read(p) } }
}

/// Evaluates the expression with `$t` as the type of the dtype.
macro_rules! by_dtype {
    ($of:expr, $dtype:expr, $t:ident => $e:expr) => {
        match $dtype {
            $crate::raw::SOFTMAX_F32 => {
                type $t = f32;
                $e
            }
            $crate::raw::SOFTMAX_F64 => {
                type $t = f64;
                $e
            }
            $crate::raw::SOFTMAX_F16 => {
                type $t = softmax::half::f16;
                $e
            }
            $crate::raw::SOFTMAX_BF16 => {
                type $t = softmax::half::bf16;
                $e
            }
            dtype => Err($crate::status::Reason::Dtype { of: $of, dtype }.into()),
        }
    };
}
pub(crate) use by_dtype;

/// Memory that a call uses: `rows` runs of `len` bytes, `stride` bytes apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    what: &'static str,
    start: usize,
    len: usize,
    stride: usize,
    /// Bytes from the start of the first run to the end of the last.
    extent: usize,
}

impl Region {
    /// The region of a single run, which must be a possible slice. A null pointer has no bytes.
    pub(crate) fn of<T>(what: &'static str, p: *const T, n: usize) -> Result<Self, Failure> {
        let len = if p.is_null() || n == 0 { 0 } else { check(what, p, n)? };
        Ok(Self { what, start: p.addr(), len, stride: len, extent: len })
    }

    /// Whether one region lies behind the other. (Both lie in the address space.)
    #[inline(always)]
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        self.start.saturating_add(self.extent) <= other.start
            || other.start.saturating_add(other.extent) <= self.start
    }

    fn overlaps(&self, other: &Self) -> bool {
        if self.extent == 0 || other.extent == 0 {
            return false;
        }
        if self.is_apart_from(other) {
            return false;
        }
        // Regions may be different columns of one matrix.
        let stride = self.stride;
        if stride != other.stride || stride == 0 {
            return true;
        }
        let (a, b) = if self.start <= other.start { (self, other) } else { (other, self) };
        let shift = (b.start - a.start) % stride;
        !(shift >= a.len && b.len <= stride - shift)
    }
}

/// Refuses outputs that overlap each other or any input.
pub(crate) fn disjoint(written: &[Region], read: &[Region]) -> Result<(), Failure> {
    for (i, a) in written.iter().enumerate() {
        let others = written[i + 1..].iter().chain(read);
        if let Some(b) = others.into_iter().find(|b| a.overlaps(b)) {
            return Err(Reason::Overlap(a.what, b.what).into());
        }
    }
    Ok(())
}

impl softmax_matrix {
    /// The region of the matrix, if it can be one of elements of this type.
    #[inline(always)]
    pub(crate) fn region<T: Element>(&self, what: &'static str) -> Result<Region, Failure> {
        let Self { rows, cols, stride, .. } = *self;
        let p = self.data.cast::<T>();
        if rows == 0 || cols == 0 {
            return Ok(Region { what, start: p.addr(), len: 0, stride: 0, extent: 0 });
        }
        if p.is_null() {
            return Err(Reason::Null(what).into());
        }
        if !p.is_aligned() {
            return Err(Reason::Alignment(what).into());
        }
        if rows > 1 && stride < cols {
            return Err(Reason::Stride { cols, stride }.into());
        }
        let elements = (rows - 1).checked_mul(stride).and_then(|n| n.checked_add(cols));
        let extent = elements.and_then(|n| n.checked_mul(size_of::<T>()));
        match extent.filter(|&bytes| bytes <= isize::MAX as usize) {
            Some(extent) if p.addr().checked_add(extent).is_some() => {
                let bytes = |n: usize| n.wrapping_mul(size_of::<T>());
                let stride = bytes(self.stride());
                Ok(Region { what, start: p.addr(), len: bytes(cols), stride, extent })
            }
            _ => Err(Reason::TooLarge(what).into()),
        }
    }

    /// The stride; for a single row, which may have any, one that cannot overflow.
    #[inline(always)]
    fn stride(&self) -> usize {
        if self.rows <= 1 || self.cols == 0 { self.cols } else { self.stride }
    }

    /// A pointer that is not null.
    #[inline(always)]
    fn pointer<T: Element>(&self) -> *mut T {
        if self.data.is_null() { NonNull::dangling().as_ptr() } else { self.data.cast() }
    }

    /// A view to read.
    ///
    /// # Safety
    /// [`softmax_matrix::region`] has accepted it for this type; the rows are valid for reads while
    /// the view is used, and nobody writes them.
    #[inline(always)]
    pub(crate) unsafe fn view_unchecked<'a, T: Element>(&self) -> Matrix<'a, T> {
        // SAFETY: as this function's.
        unsafe {
            Matrix::from_raw_unchecked(self.pointer::<T>(), self.rows, self.cols, self.stride())
        }
    }

    /// A view to write.
    ///
    /// # Safety
    /// [`softmax_matrix::region`] has accepted it for this type; the rows are valid for reads and
    /// writes while the view is used, and nobody else uses them.
    #[inline(always)]
    pub(crate) unsafe fn view_mut_unchecked<'a, T: Element>(&self) -> MatrixMut<'a, T> {
        // SAFETY: as this function's.
        unsafe {
            MatrixMut::from_raw_unchecked(self.pointer::<T>(), self.rows, self.cols, self.stride())
        }
    }

    /// A view to read.
    ///
    /// # Safety
    /// The rows are valid for reads of elements of this type while the view is used, and nobody
    /// writes them.
    pub(crate) unsafe fn view<'a, T: Element>(
        &self,
        what: &'static str,
    ) -> Result<Matrix<'a, T>, Failure> {
        self.region::<T>(what)?;
        // SAFETY: accepted; the rest is this function's.
        Ok(unsafe { self.view_unchecked() })
    }

    /// A view to write.
    ///
    /// # Safety
    /// The rows are valid for reads and writes of elements of this type while the view is used, and
    /// nobody else uses them.
    pub(crate) unsafe fn view_mut<'a, T: Element>(
        &self,
        what: &'static str,
    ) -> Result<MatrixMut<'a, T>, Failure> {
        self.region::<T>(what)?;
        // SAFETY: accepted; the rest is this function's.
        Ok(unsafe { self.view_mut_unchecked() })
    }

    /// Whether both are the same memory with the same shape.
    #[inline(always)]
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.data == other.data
            && (self.dtype, self.rows, self.cols) == (other.dtype, other.rows, other.cols)
            && (self.stride == other.stride || self.rows <= 1)
    }
}

/// `n` elements to read.
///
/// # Safety
/// If they can be a slice, they are valid for reads while it is used, and nobody writes them.
pub(crate) unsafe fn slice<'a, T>(
    what: &'static str,
    p: *const T,
    n: usize,
) -> Result<&'a [T], Failure> {
    if n == 0 {
        return Ok(&[]);
    }
    check(what, p, n)?;
    // SAFETY: not null, aligned, not too long; the rest is this function's.
    Ok(unsafe { std::slice::from_raw_parts(p, n) })
}

/// `n` elements to write.
///
/// # Safety
/// If they can be a slice, they are valid for reads and writes while it is used, and nobody else
/// uses them.
pub(crate) unsafe fn slice_mut<'a, T>(
    what: &'static str,
    p: *mut T,
    n: usize,
) -> Result<&'a mut [T], Failure> {
    if n == 0 {
        return Ok(&mut []);
    }
    check(what, p, n)?;
    // SAFETY: not null, aligned, not too long; the rest is this function's.
    Ok(unsafe { std::slice::from_raw_parts_mut(p, n) })
}

/// As [`slice`]; `None` if it is null.
///
/// # Safety
/// As [`slice`].
pub(crate) unsafe fn slice_or_none<'a, T>(
    what: &'static str,
    p: *const T,
    n: usize,
) -> Result<Option<&'a [T]>, Failure> {
    // SAFETY: as this function's.
    if p.is_null() { Ok(None) } else { unsafe { slice(what, p, n) }.map(Some) }
}

/// The bytes of `n` elements, if they can be a slice.
fn check<T>(what: &'static str, p: *const T, n: usize) -> Result<usize, Failure> {
    if p.is_null() {
        return Err(Reason::Null(what).into());
    }
    if !p.is_aligned() {
        return Err(Reason::Alignment(what).into());
    }
    let bytes = n.checked_mul(size_of::<T>()).filter(|&bytes| bytes <= isize::MAX as usize);
    let bytes = bytes.filter(|&bytes| p.addr().checked_add(bytes).is_some());
    bytes.ok_or_else(|| Reason::TooLarge(what).into())
}

/// Writes a result that the caller wants.
///
/// # Safety
/// Valid for a write.
pub(crate) unsafe fn write<T>(what: &'static str, p: *mut T, value: T) -> Result<(), Failure> {
    check(what, p, 1)?;
    // SAFETY: not null and aligned; the rest is this function's.
    unsafe { p.write(value) };
    Ok(())
}

/// Refuses two matrices of different types.
pub(crate) fn same_dtype(
    of: &'static str,
    a: &softmax_matrix,
    b: &softmax_matrix,
) -> Result<(), Failure> {
    let dtypes = (a.dtype, b.dtype);
    if dtypes.0 == dtypes.1 { Ok(()) } else { Err(Reason::Dtypes { of, dtypes }.into()) }
}
