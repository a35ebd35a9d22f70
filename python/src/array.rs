//! Arrays that came from Python: where their elements lie, and views of them for the library. All
//! `unsafe` of this crate is here, but for two calls in `dlpack.rs`.
//!
//! The rule that makes it sound: an [`Array`] keeps its Python object, and with it the memory,
//! alive; its pointer, shape and strides are what NumPy or PyTorch say of that object; and what is
//! written is an [`Output`], which overlaps no [`Array`] that it was compared with. As with NumPy's
//! own functions, other threads must leave both alone until the call returns.
#![allow(unsafe_code)]

use std::borrow::Cow;
use std::marker::PhantomData;

use ::softmax::half::{bf16, f16};
use ::softmax::ndarray::{ArrayViewD, ArrayViewMutD, Axis, IxDyn, ShapeBuilder};
use ::softmax::{Element, Matrix, MatrixMut};
use numpy::npyffi::{
    self, NPY_ARRAY_ALIGNED, NPY_ARRAY_WRITEABLE, NPY_ORDER, NPY_TYPES, PY_ARRAY_API,
};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyModule, PyString, PyTuple};
use smallvec::SmallVec;

use crate::torch::{Tensor, Torch};

/// Types of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    F16,
    Bf16,
    F32,
    F64,
    /// Of indices and labels.
    I64,
    /// Of masks.
    Bool,
}

impl Dtype {
    pub const ALL: [Self; 6] = [Self::F16, Self::Bf16, Self::F32, Self::F64, Self::I64, Self::Bool];

    /// Whether it is computed with.
    pub fn is_float(self) -> bool {
        !matches!(self, Self::I64 | Self::Bool)
    }

    /// As NumPy and PyTorch call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I64 => "int64",
            Self::Bool => "bool",
        }
    }

    fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::F32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// What sums and logarithms of such elements are returned as.
    pub fn arithmetic(self) -> Self {
        match self {
            Self::F64 => Self::F64,
            _ => Self::F32,
        }
    }
}

/// Elements of arrays.
///
/// # Safety
/// `DTYPE` has the size of `Self`, and any bits are a value.
pub unsafe trait Typed: Copy + Send + Sync + 'static {
    const DTYPE: Dtype;
}

// SAFETY: as it says; any bits are a number.
unsafe impl Typed for f16 {
    const DTYPE: Dtype = Dtype::F16;
}
// SAFETY: as above.
unsafe impl Typed for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
}
// SAFETY: as above.
unsafe impl Typed for f32 {
    const DTYPE: Dtype = Dtype::F32;
}
// SAFETY: as above.
unsafe impl Typed for f64 {
    const DTYPE: Dtype = Dtype::F64;
}
// SAFETY: as above.
unsafe impl Typed for i64 {
    const DTYPE: Dtype = Dtype::I64;
}
// SAFETY: bools are bytes; any byte is a number.
unsafe impl Typed for u8 {
    const DTYPE: Dtype = Dtype::Bool;
}

/// Elements that the library computes with.
pub trait Float: Element<Arithmetic = Self::Sums> + Typed {
    type Sums: Element + Typed;
}

impl Float for f16 {
    type Sums = f32;
}
impl Float for bf16 {
    type Sums = f32;
}
impl Float for f32 {
    type Sums = f32;
}
impl Float for f64 {
    type Sums = f64;
}

/// Whose array it is, which is what a result becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Numpy,
    Torch,
}

/// Few enough for most arrays to need no memory of their own.
pub type Sizes = SmallVec<[usize; 4]>;
pub type Strides = SmallVec<[isize; 4]>;

/// An array to be read.
pub struct Array<'py> {
    object: Bound<'py, PyAny>,
    data: *mut u8,
    dtype: Dtype,
    shape: Sizes,
    /// In elements; anything along axes of one or no element.
    strides: Strides,
    writable: bool,
    kind: Kind,
    /// Whether it is a tensor of PyTorch's own class.
    plain: bool,
    /// Makes of a result what the caller has; `None` where that is the result itself.
    wrap: Option<Bound<'py, PyAny>>,
}

/// The Python part of what is neither a plain NumPy array nor a tensor.
fn converters<'py>(py: Python<'py>) -> PyResult<&'py Bound<'py, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        // The C interface, which panics where there is no NumPy.
        py.import("numpy")?;
        py.import("softmax._arrays").map(Bound::unbind)
    });
    module.map(|module| module.bind(py))
}

impl<'py> Array<'py> {
    /// An array of numbers to compute with. Nothing is copied that can be read where it is;
    /// integers and bools become f64.
    pub fn input(x: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        match Self::known(x, name)? {
            Some(array) if array.dtype.is_float() => Ok(array),
            Some(array) if array.kind == Kind::Torch => {
                let double = array.object.call_method0(intern!(x.py(), "double"))?;
                Self::input(&double, name)
            }
            _ => Self::converted(x, name, intern!(x.py(), "to_array")),
        }
    }

    /// An array of floats, int64 or bool: labels, or what may stand in their place.
    pub fn labels(x: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        let converter = intern!(x.py(), "to_labels");
        Self::known(x, name)?.map_or_else(|| Self::converted(x, name, converter), Ok)
    }

    /// What needs no conversion.
    fn known(x: &Bound<'py, PyAny>, name: &str) -> PyResult<Option<Self>> {
        let py = x.py();
        converters(py)?;
        if let Some(array) = Self::from_ndarray(x) {
            return Ok(Some(array));
        }
        match Torch::if_tensor(x)? {
            Some(torch) => Self::from_tensor(torch, x, name).map(Some),
            None => Ok(None),
        }
    }

    /// Lists, integers, other libraries' arrays: by NumPy, once.
    fn converted(
        x: &Bound<'py, PyAny>,
        name: &str,
        converter: &Bound<'py, PyString>,
    ) -> PyResult<Self> {
        let pair = converters(x.py())?.call_method1(converter, (x, name))?;
        let (array, wrap) = pair.extract::<(Bound<PyAny>, Option<Bound<PyAny>>)>()?;
        let found = Self::from_ndarray(&array);
        let found = found.ok_or_else(|| PyTypeError::new_err(format!("{name} is no array")))?;
        Ok(Self { wrap, ..found })
    }

    /// A plain NumPy array whose elements can be read where they are.
    fn from_ndarray(x: &Bound<'py, PyAny>) -> Option<Self> {
        let py = x.py();
        // SAFETY: x is an object, and NumPy has been imported.
        if unsafe { npyffi::PyArray_CheckExact(py, x.as_ptr()) } == 0 {
            return None;
        }
        // SAFETY: x is an array, and lives.
        let fields = unsafe { &*npyffi::_PyArray_GET_ITEM_DATA(x.as_ptr().cast()) };
        // SAFETY: an array has a type of elements.
        let descr = unsafe { &(*fields.descr).fields };
        let dtype = match descr.type_num {
            n if n == NPY_TYPES::NPY_FLOAT as i32 => Dtype::F32,
            n if n == NPY_TYPES::NPY_DOUBLE as i32 => Dtype::F64,
            n if n == NPY_TYPES::NPY_HALF as i32 => Dtype::F16,
            n if n == NPY_TYPES::NPY_BOOL as i32 => Dtype::Bool,
            n if n == NPY_TYPES::NPY_LONGLONG as i32 || n == NPY_TYPES::NPY_LONG as i32 => {
                // As long as that is of 64 bits.
                (numpy_size(x)? == 8).then_some(Dtype::I64)?
            }
            n if n >= NPY_TYPES::NPY_USERDEF as i32 && is_bfloat16(x)? => Dtype::Bf16,
            _ => return None,
        };
        let native = matches!(descr.byteorder as u8, b'=' | b'|')
            || descr.byteorder as u8 == if cfg!(target_endian = "little") { b'<' } else { b'>' };
        if !native || fields.flags & NPY_ARRAY_ALIGNED == 0 {
            return None;
        }
        let (shape, strides) = match usize::try_from(fields.nd) {
            Ok(0) | Err(_) => (Sizes::new(), Strides::new()),
            // SAFETY: they have `nd` sizes and strides.
            Ok(nd) => unsafe {
                (
                    std::slice::from_raw_parts(fields.dimensions, nd)
                        .iter()
                        .map(|&n| n as usize)
                        .collect(),
                    Strides::from_slice(std::slice::from_raw_parts(fields.strides, nd)),
                )
            },
        };
        let size = dtype.size() as isize;
        if strides.iter().any(|stride| stride % size != 0) {
            return None;
        }
        Some(Self {
            object: x.clone(),
            data: fields.data.cast(),
            dtype,
            shape,
            strides: strides.into_iter().map(|stride| stride / size).collect(),
            writable: fields.flags & NPY_ARRAY_WRITEABLE != 0,
            kind: Kind::Numpy,
            plain: false,
            wrap: None,
        })
    }

    fn from_tensor(torch: &Torch, x: &Bound<'py, PyAny>, name: &str) -> PyResult<Self> {
        let tensor = torch.readable(x, name)?;
        if !tensor.data.is_multiple_of(tensor.dtype.size()) {
            return Err(PyValueError::new_err(format!("{name} is not aligned to its elements")));
        }
        Ok(Self::of_tensor(tensor))
    }

    fn of_tensor(tensor: Tensor<'py>) -> Self {
        Self {
            object: tensor.object,
            data: tensor.data as *mut u8,
            dtype: tensor.dtype,
            shape: tensor.shape,
            strides: tensor.strides,
            writable: true,
            kind: Kind::Torch,
            plain: tensor.plain,
            wrap: None,
        }
    }

    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Whether its elements are in C order, without gaps.
    fn is_in_order(&self) -> bool {
        let mut next = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
            let fits = n == 1 || stride == next;
            next *= n as isize;
            fits
        })
    }

    /// The elements and where they are.
    pub fn layout(&self) -> Layout<'_> {
        Layout {
            data: self.data,
            dtype: self.dtype,
            shape: Sizes::from_slice(&self.shape),
            strides: Strides::from_slice(&self.strides),
            of: PhantomData,
        }
    }

    /// The first byte and the one behind the last.
    fn extent(&self) -> (usize, usize) {
        let (mut low, mut high) = (0, 0);
        for (&n, &stride) in self.shape.iter().zip(&self.strides) {
            if n == 0 {
                return (0, 0);
            }
            let reach = (n as isize - 1) * stride;
            if reach < 0 { low += reach } else { high += reach }
        }
        let size = self.dtype.size() as isize;
        (
            self.data.addr().wrapping_add_signed(low * size),
            self.data.addr().wrapping_add_signed((high + 1) * size),
        )
    }

    /// Asks for large pages under a new tensor, as NumPy does for its arrays: without them most of
    /// the time of a large call is spent on getting the pages of its output, one by one.
    fn advise_large_pages(&self) {
        #[cfg(target_os = "linux")]
        {
            /// As NumPy has it.
            const LEAST: usize = 1 << 22;
            const PAGE: usize = 1 << 12;
            let (low, high) = self.extent();
            let (low, high) = (low.next_multiple_of(PAGE), high / PAGE * PAGE);
            if high.saturating_sub(low) >= LEAST {
                // SAFETY: advice that changes no bytes, on pages that are wholly the tensor's; if
                // it is not understood, nothing happens.
                unsafe {
                    libc::madvise(self.data.with_addr(low).cast(), high - low, libc::MADV_HUGEPAGE);
                }
            }
        }
    }

    /// Whether elements may share memory.
    fn meets(&self, other: &Self) -> PyResult<bool> {
        let ((a, b), (c, d)) = (self.extent(), other.extent());
        if a >= d || c >= b {
            return Ok(false);
        }
        if self.kind == Kind::Numpy && other.kind == Kind::Numpy {
            // Columns between columns, for instance.
            let py = self.object.py();
            let meets = converters(py)?
                .call_method1(intern!(py, "overlap"), (&self.object, &other.object))?;
            return meets.is_truthy();
        }
        Ok(true)
    }

    /// Whether every element is where the other has it.
    fn is(&self, other: &Self) -> bool {
        let same = |i: usize| self.shape[i] <= 1 || self.strides[i] == other.strides[i];
        self.data == other.data
            && self.dtype == other.dtype
            && self.shape == other.shape
            && (0..self.shape.len()).all(same)
    }
}

/// Refuses an array that is not of the type of `x`, which errors call `of`.
pub fn same_type(x: &Array, other: &Array, name: &str, of: &str) -> PyResult<()> {
    if other.dtype != x.dtype {
        let (want, got) = (x.dtype.name(), other.dtype.name());
        return Err(PyTypeError::new_err(format!("{name} must be {want}, as {of}, got {got}")));
    }
    Ok(())
}

/// Refuses an array that is not of the type and shape of `x`, which errors call `of`.
pub fn alike(x: &Array, other: &Array, name: &str, of: &str) -> PyResult<()> {
    same_type(x, other, name, of)?;
    if other.shape != x.shape {
        let (want, got) = (tuple(&x.shape), tuple(&other.shape));
        let text = format!("{name} must have shape {want}, as {of}, got {got}");
        return Err(PyValueError::new_err(text));
    }
    Ok(())
}

fn numpy_size(x: &Bound<PyAny>) -> Option<usize> {
    x.getattr(intern!(x.py(), "itemsize")).ok()?.extract().ok()
}

fn is_bfloat16(x: &Bound<PyAny>) -> Option<bool> {
    let py = x.py();
    let dtype = x.getattr(intern!(py, "dtype")).ok()?;
    Some(dtype.getattr(intern!(py, "name")).ok()?.extract::<&str>().ok()? == "bfloat16")
}

/// An array to be written, whose memory is nothing else's.
pub struct Output<'py> {
    array: Array<'py>,
    /// Whether it is the caller's.
    given: bool,
    /// Whether it is the input, too.
    pub in_place: bool,
}

impl<'py> Output<'py> {
    /// `out`, or a new array of the same kind, type, shape and order of axes as `x`.
    pub fn like(x: &Array<'py>, out: Option<&Bound<'py, PyAny>>) -> PyResult<Self> {
        match out {
            Some(out) => Self::given(x, out, &x.shape, x.dtype),
            None => Self::new_like(x),
        }
    }

    /// As [`Output::like`], but not `x` itself, which errors call `name`.
    pub fn beside(x: &Array<'py>, name: &str, out: Option<&Bound<'py, PyAny>>) -> PyResult<Self> {
        let output = Self::like(x, out)?;
        if output.in_place {
            let text = format!("out must be memory apart from {name}");
            return Err(PyValueError::new_err(text));
        }
        Ok(output)
    }

    fn new_like(x: &Array<'py>) -> PyResult<Self> {
        let py = x.object.py();
        if x.kind == Kind::Torch {
            let torch = Torch::get(py)?;
            let small = (x.plain && x.is_in_order()).then(|| torch.small(py, &x.shape, x.dtype));
            let made = small.flatten().unwrap_or_else(|| torch.empty_like(&x.object, x.dtype));
            return Ok(Self::tensor(made?, x));
        }
        // SAFETY: x is an array; a new reference, or null with an error set.
        let object = unsafe {
            let like = PY_ARRAY_API.PyArray_NewLikeArray(
                py,
                x.object.as_ptr().cast(),
                NPY_ORDER::NPY_KEEPORDER,
                std::ptr::null_mut(),
                0,
            );
            Bound::from_owned_ptr_or_err(py, like)?
        };
        Self::array(&object, x)
    }

    /// A new array of the kind of `x`, in C order.
    pub fn new(x: &Array<'py>, shape: &[usize], dtype: Dtype) -> PyResult<Self> {
        let py = x.object.py();
        if x.kind == Kind::Torch {
            return Ok(Self::tensor(Torch::get(py)?.empty(py, shape, dtype)?, x));
        }
        let descr = if dtype == x.dtype {
            x.object.getattr(intern!(py, "dtype"))?
        } else {
            converters(py)?.call_method1(intern!(py, "dtype_of"), (dtype.name(),))?
        };
        let shape = PyTuple::new(py, shape)?;
        Self::array(&converters(py)?.call_method1(intern!(py, "empty"), (shape, descr))?, x)
    }

    /// `out`, or else a new one.
    pub fn of(
        x: &Array<'py>,
        out: Option<&Bound<'py, PyAny>>,
        shape: &[usize],
        dtype: Dtype,
    ) -> PyResult<Self> {
        match out {
            Some(out) => Self::given(x, out, shape, dtype),
            None => Self::new(x, shape, dtype),
        }
    }

    /// An array that NumPy made here.
    fn array(object: &Bound<'py, PyAny>, x: &Array<'py>) -> PyResult<Self> {
        let array = Array { wrap: x.wrap.clone(), ..Array::labels(object, "the output")? };
        Ok(Self { array, given: false, in_place: false })
    }

    /// A tensor that was made here.
    fn tensor(tensor: Tensor<'py>, x: &Array<'py>) -> Self {
        let array = Array { wrap: x.wrap.clone(), ..Array::of_tensor(tensor) };
        array.advise_large_pages();
        Self { array, given: false, in_place: false }
    }

    fn given(
        x: &Array<'py>,
        out: &Bound<'py, PyAny>,
        shape: &[usize],
        dtype: Dtype,
    ) -> PyResult<Self> {
        let py = out.py();
        let array = match Array::known(out, "out")? {
            Some(array) if array.object.is(out) => array,
            // Memory that NumPy can see, or an error that tells why not.
            _ => {
                let view = converters(py)?.call_method1(intern!(py, "to_output"), (out,))?;
                let array = Array::from_ndarray(&view);
                array.ok_or_else(|| PyTypeError::new_err("out is not an array"))?
            }
        };
        if array.dtype != dtype {
            return Err(PyTypeError::new_err(format!(
                "out must be {} here, got {}",
                dtype.name(),
                array.dtype.name()
            )));
        }
        if array.shape.as_slice() != shape {
            return Err(PyValueError::new_err(format!(
                "out must have shape {}, got {}",
                tuple(shape),
                tuple(&array.shape)
            )));
        }
        if !array.writable {
            return Err(PyValueError::new_err("out is read-only"));
        }
        if array.layout().overlaps_itself() {
            return Err(PyValueError::new_err(
                "elements of out share memory with each other (a broadcast or windowed view)",
            ));
        }
        let in_place = array.is(x);
        if !in_place && array.meets(x)? {
            return Err(PyValueError::new_err(
                "out overlaps the input without being the same elements: give the input itself, \
                 or memory apart from it",
            ));
        }
        let array = Array { object: out.clone(), ..array };
        Ok(Self { array, given: true, in_place })
    }

    /// Refuses an output that overlaps another input of the call.
    pub fn apart(&self, other: &Array<'py>, name: &str) -> PyResult<()> {
        if self.given && self.array.meets(other)? {
            return Err(PyValueError::new_err(format!("out overlaps {name}")));
        }
        Ok(())
    }

    /// Refuses an output that overlaps another one.
    pub fn apart_from(&self, other: &Self, name: &str) -> PyResult<()> {
        self.apart(&other.array, name)
    }

    pub fn layout(&mut self) -> LayoutMut<'_> {
        LayoutMut(Layout { of: PhantomData, ..self.array.layout() })
    }

    /// What the caller gets.
    pub fn finish(self) -> PyResult<Bound<'py, PyAny>> {
        let Array { object, kind, wrap, shape, .. } = self.array;
        let py = object.py();
        if self.given {
            if kind == Kind::Torch {
                Torch::get(py)?.written(&object)?;
            }
            return Ok(object);
        }
        if let Some(wrap) = wrap {
            return wrap.call1((object,));
        }
        // As NumPy's functions do: a number instead of an array of none.
        if shape.is_empty() && kind == Kind::Numpy {
            return object.get_item(PyTuple::empty(py));
        }
        Ok(object)
    }
}

/// Sizes as Python prints them.
pub fn tuple(sizes: &[usize]) -> String {
    match sizes {
        [n] => format!("({n},)"),
        sizes => {
            let sizes: Vec<_> = sizes.iter().map(usize::to_string).collect();
            format!("({})", sizes.join(", "))
        }
    }
}

/// Elements of an array in some order of axes.
#[derive(Clone)]
pub struct Layout<'a> {
    data: *mut u8,
    dtype: Dtype,
    shape: Sizes,
    strides: Strides,
    of: PhantomData<&'a [u8]>,
}

/// As [`Layout`], to be written.
pub struct LayoutMut<'a>(Layout<'a>);

/// Rows of a matrix: how many, how long, how far apart.
type Rows = (usize, usize, usize);

impl<'a> Layout<'a> {
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// An array of no axes as one with an axis of one element.
    pub fn at_least_one_axis(mut self) -> Self {
        if self.shape.is_empty() {
            self.shape.push(1);
            self.strides.push(1);
        }
        self
    }

    /// Moves axes to the end, in the order given.
    pub fn moved_last(mut self, axes: &[usize]) -> Self {
        if axes.iter().copied().eq(self.shape.len() - axes.len()..self.shape.len()) {
            return self;
        }
        let order = (0..self.shape.len()).filter(|axis| !axes.contains(axis));
        let order: Sizes = order.chain(axes.iter().copied()).collect();
        self.shape = order.iter().map(|&axis| self.shape[axis]).collect();
        self.strides = order.iter().map(|&axis| self.strides[axis]).collect();
        self
    }

    /// Makes one axis of the last `n`, if their elements are as far from each other as along one.
    pub fn joined(mut self, n: usize) -> Option<Self> {
        if n == 1 {
            return Some(self);
        }
        let at = self.shape.len() - n;
        let (mut len, mut stride) = (1, 1);
        for axis in (at..self.shape.len()).rev() {
            if self.shape[axis] == 1 {
                continue;
            }
            if len == 1 {
                stride = self.strides[axis];
            } else if self.strides[axis] != stride * len as isize && self.len() > 0 {
                return None;
            }
            len *= self.shape[axis];
        }
        self.shape.truncate(at);
        self.strides.truncate(at);
        self.shape.push(len);
        self.strides.push(stride);
        Some(self)
    }

    /// As the shape says, with axes of stride 0 where it has one element and `shape` more.
    pub fn broadcast(mut self, shape: &[usize]) -> Option<Self> {
        let missing = shape.len().checked_sub(self.shape.len())?;
        self.shape.insert_many(0, std::iter::repeat_n(1, missing));
        self.strides.insert_many(0, std::iter::repeat_n(0, missing));
        for (axis, &n) in shape.iter().enumerate() {
            if self.shape[axis] == 1 && n != 1 {
                self.strides[axis] = 0;
                self.shape[axis] = n;
            } else if self.shape[axis] != n {
                return None;
            }
        }
        Some(self)
    }

    /// The elements at the start of the first `n` axes.
    pub fn of_first(mut self, n: usize) -> Self {
        self.shape.drain(..n);
        self.strides.drain(..n);
        self
    }

    /// The rows along the last axis, if they are those of a matrix.
    pub fn rows(&self) -> Option<Rows> {
        let (&cols, outer) = self.shape.split_last()?;
        let rows = outer.iter().product();
        if rows == 0 || cols == 0 {
            return Some((rows, cols, cols));
        }
        if cols > 1 && self.strides[outer.len()] != 1 {
            return None;
        }
        let (mut seen, mut stride) = (1, cols as isize);
        for axis in (0..outer.len()).rev().filter(|&axis| outer[axis] > 1) {
            if seen == 1 {
                stride = self.strides[axis];
            } else if self.strides[axis] != stride * seen as isize {
                return None;
            }
            seen *= outer[axis];
        }
        // Rows that overlap are none.
        usize::try_from(stride).ok().filter(|&stride| stride >= cols).map(|s| (rows, cols, s))
    }

    /// Whether all elements lie one behind the other in C order.
    pub fn is_dense(&self) -> bool {
        self.rows().is_some_and(|(rows, cols, stride)| stride == cols || rows <= 1)
    }

    /// The axis of more than one element whose neighbours are nearest to each other.
    pub fn nearest_axis(&self) -> usize {
        let far = |&axis: &usize| (self.shape[axis] <= 1, self.strides[axis].unsigned_abs());
        (0..self.shape.len()).rev().min_by_key(far).unwrap_or(0)
    }

    fn overlaps_itself(&self) -> bool {
        if self.len() == 0 {
            return false;
        }
        let axes = self.shape.iter().zip(&self.strides).filter(|(n, _)| **n > 1);
        let mut axes: SmallVec<[(usize, usize); 6]> =
            axes.map(|(&n, stride)| (stride.unsigned_abs(), n)).collect();
        axes.sort_unstable();
        // An axis whose steps are longer than all that the shorter ones reach. (Others may be
        // without overlap, too; nobody makes such arrays.)
        let mut reach = 0;
        axes.into_iter().any(|(stride, n)| {
            let overlaps = stride <= reach;
            reach += stride * (n - 1);
            overlaps
        })
    }

    fn check<T: Typed>(&self) {
        assert!(self.dtype == T::DTYPE, "a view of {:?} as {:?}", self.dtype, T::DTYPE);
    }

    /// The rows along the last axis.
    pub fn matrix<T: Typed>(&self) -> Option<Matrix<'a, T>> {
        self.check::<T>();
        let (rows, cols, stride) = self.rows()?;
        // SAFETY: these are elements of an array that is alive for 'a, of this type, aligned, and
        // written by nobody meanwhile, as the top of this file says.
        unsafe { Matrix::from_raw(self.data.cast(), rows, cols, stride) }.ok()
    }

    /// All elements, where they are one behind the other.
    pub fn slice<T: Typed>(&self) -> Option<&'a [T]> {
        self.check::<T>();
        if self.len() == 0 {
            return Some(&[]);
        }
        if !self.shape.is_empty() && !self.is_dense() {
            return None;
        }
        // SAFETY: as of `matrix`; there are as many elements, without gaps.
        Some(unsafe { std::slice::from_raw_parts(self.data.cast(), self.len()) })
    }

    /// All elements in C order, copied if they do not lie so.
    pub fn in_order<T: Typed>(&self) -> Cow<'a, [T]> {
        match self.slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => self.view::<T>().iter().copied().collect(),
        }
    }

    /// The lowest address, strides without signs, and the axes that are to be turned round.
    fn unsigned(&self) -> (*mut u8, Sizes, Sizes) {
        let (mut data, mut strides, mut turned) = (self.data, Sizes::new(), Sizes::new());
        for (axis, (&n, &stride)) in self.shape.iter().zip(&self.strides).enumerate() {
            strides.push(if n > 1 { stride.unsigned_abs() } else { 0 });
            if stride < 0 && n > 1 && self.len() > 0 {
                let bytes = (n as isize - 1) * stride * self.dtype.size() as isize;
                data = data.wrapping_offset(bytes);
                turned.push(axis);
            }
        }
        if self.len() == 0 {
            // It may be null, and no element is there.
            data = std::ptr::without_provenance_mut(self.dtype.size());
        }
        (data, strides, turned)
    }

    /// A view of all elements.
    pub fn view<T: Typed>(&self) -> ArrayViewD<'a, T> {
        self.check::<T>();
        let (data, strides, turned) = self.unsigned();
        let shape = IxDyn(&self.shape).strides(IxDyn(&strides));
        // SAFETY: as of `matrix`; from the lowest address on these strides reach the array's
        // elements and no others.
        let mut view = unsafe { ArrayViewD::from_shape_ptr(shape, data.cast()) };
        turned.into_iter().for_each(|axis| view.invert_axis(Axis(axis)));
        view
    }
}

impl<'a> LayoutMut<'a> {
    pub fn map(self, f: impl FnOnce(Layout<'a>) -> Layout<'a>) -> Self {
        Self(f(self.0))
    }

    pub fn try_map(self, f: impl FnOnce(Layout<'a>) -> Option<Layout<'a>>) -> Option<Self> {
        f(self.0).map(Self)
    }

    pub fn get(&self) -> &Layout<'a> {
        &self.0
    }

    pub fn copy_of(&mut self) -> LayoutMut<'_> {
        LayoutMut(self.0.clone())
    }

    /// The rows along the last axis.
    pub fn matrix<T: Typed>(&mut self) -> Option<MatrixMut<'_, T>> {
        self.0.check::<T>();
        let (rows, cols, stride) = self.0.rows()?;
        // SAFETY: these are elements of an output, of this type and aligned, which nobody else has
        // while `self` is borrowed; rows do not overlap.
        unsafe { MatrixMut::from_raw(self.0.data.cast(), rows, cols, stride) }.ok()
    }

    /// All elements, where they are one behind the other.
    pub fn slice<T: Typed>(&mut self) -> Option<&mut [T]> {
        let n = self.0.slice::<T>()?.len();
        if n == 0 {
            return Some(&mut []);
        }
        // SAFETY: as of `matrix`; there are as many elements, without gaps.
        Some(unsafe { std::slice::from_raw_parts_mut(self.0.data.cast(), n) })
    }

    /// A view of all elements.
    pub fn view<T: Typed>(&mut self) -> ArrayViewMutD<'_, T> {
        self.0.check::<T>();
        let (data, strides, turned) = self.0.unsigned();
        let shape = IxDyn(&self.0.shape).strides(IxDyn(&strides));
        // SAFETY: as of `matrix`; from the lowest address on these strides reach the output's
        // elements, each of them once, and no others.
        let mut view = unsafe { ArrayViewMutD::from_shape_ptr(shape, data.cast()) };
        turned.into_iter().for_each(|axis| view.invert_axis(Axis(axis)));
        view
    }
}

/// Calls with `$T` as the type of the elements.
macro_rules! typed {
    ($dtype:expr, $T:ident => $e:expr) => {
        match $dtype {
            $crate::array::Dtype::F32 => {
                type $T = f32;
                $e
            }
            $crate::array::Dtype::F64 => {
                type $T = f64;
                $e
            }
            $crate::array::Dtype::F16 => {
                type $T = ::softmax::half::f16;
                $e
            }
            $crate::array::Dtype::Bf16 => {
                type $T = ::softmax::half::bf16;
                $e
            }
            // Arrays are made floats before.
            $crate::array::Dtype::I64 | $crate::array::Dtype::Bool => {
                Err(pyo3::exceptions::PyTypeError::new_err("integers cannot be computed with"))
            }
        }
    };
}
pub(crate) use typed;
