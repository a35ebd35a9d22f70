//! DLPack's table of C functions (`__dlpack_c_exchange_api__`), by which PyTorch tells of a tensor
//! within nanoseconds, and makes one of memory that it is given. Source: dlpack.h, version 1.3.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};
use smallvec::SmallVec;

use crate::array::{Dtype, Sizes, Strides};

/// `DLTensor`.
#[repr(C)]
struct DlTensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *const i64,
    strides: *const i64,
    byte_offset: u64,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Managed {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: unsafe extern "C" fn(*mut Managed),
    flags: u64,
    tensor: DlTensor,
}

type Read = unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int;
type Import = unsafe extern "C" fn(*mut Managed, *mut *mut c_void) -> c_int;

/// `DLPackExchangeAPI`. Nothing is known here of the functions that are not called.
#[repr(C)]
struct Table {
    major: u32,
    minor: u32,
    older: *const c_void,
    allocate: *const c_void,
    export: *const c_void,
    import: Option<Import>,
    read: Option<Read>,
}

/// DLPack's device of memory that the CPU allocates.
const CPU: i32 = 1;

/// The code of a type, and its bits.
fn coded(dtype: Dtype) -> (u8, u8) {
    match dtype {
        Dtype::F16 => (2, 16),
        Dtype::F32 => (2, 32),
        Dtype::F64 => (2, 64),
        Dtype::Bf16 => (4, 16),
        Dtype::I64 => (0, 64),
        Dtype::Bool => (6, 8),
    }
}

/// How tensors of a class are looked at and made.
pub struct Exchange {
    read: Read,
    import: Import,
    /// The owner of the table.
    _capsule: Py<PyAny>,
}

/// What is known of a tensor.
pub struct Seen {
    pub data: usize,
    pub dtype: Dtype,
    pub shape: Sizes,
    pub strides: Strides,
}

impl Exchange {
    /// That of a class, if it has it.
    pub fn of(class: &Bound<PyType>) -> Option<Self> {
        let object = class.getattr("__dlpack_c_exchange_api__").ok()?;
        let capsule = object.cast::<PyCapsule>().ok()?;
        let table = capsule.pointer_checked(Some(c"dlpack_exchange_api")).ok()?;
        // SAFETY: a capsule of this name has this table, whose first number tells whether the rest
        // is as it is here. It lives as long as the capsule.
        let table = unsafe { table.cast::<Table>().as_ref() };
        if table.major != 1 {
            return None;
        }
        Some(Self { read: table.read?, import: table.import?, _capsule: object.unbind() })
    }

    /// A tensor of that very class, in the CPU's memory and of a type that is known; `None` for
    /// others.
    pub fn read(&self, x: &Bound<PyAny>) -> Option<Seen> {
        let mut seen = DlTensor {
            data: std::ptr::null_mut(),
            device_type: 0,
            device_id: 0,
            ndim: 0,
            code: 0,
            bits: 0,
            lanes: 0,
            shape: std::ptr::null(),
            strides: std::ptr::null(),
            byte_offset: 0,
        };
        // SAFETY: the function takes an object of its class and a place to write to, and the
        // interpreter is attached.
        if unsafe { (self.read)(x.as_ptr().cast(), &mut seen) } != 0 {
            // Whoever asks otherwise is told the reason.
            drop(PyErr::take(x.py()));
            return None;
        }
        let code = (seen.code, seen.bits);
        let dtype = Dtype::ALL.into_iter().find(|&dtype| coded(dtype) == code)?;
        let dims = usize::try_from(seen.ndim).ok()?;
        let described = dims == 0 || !(seen.shape.is_null() || seen.strides.is_null());
        if seen.device_type != CPU || seen.lanes != 1 || !described {
            return None;
        }
        let sizes = |from: *const i64| match dims {
            0 => &[][..],
            // SAFETY: there are as many sizes and strides, of the tensor itself, which is alive and
            // is not changed before they are copied.
            n => unsafe { std::slice::from_raw_parts(from, n) },
        };
        let shape: Sizes = sizes(seen.shape).iter().map(|&n| n as usize).collect();
        if seen.data.is_null() && !shape.contains(&0) {
            return None;
        }
        Some(Seen {
            data: seen.data.addr() + seen.byte_offset as usize,
            dtype,
            shape,
            strides: sizes(seen.strides).iter().map(|&n| n as isize).collect(),
        })
    }

    /// A new small tensor in C order, in memory of this library: in half the time of
    /// `torch.empty`. `None` for larger ones, whose memory is to be PyTorch's.
    pub fn small<'py>(
        &self,
        py: Python<'py>,
        shape: &[usize],
        dtype: Dtype,
    ) -> Option<PyResult<(Bound<'py, PyAny>, Seen)>> {
        let (code, bits) = coded(dtype);
        let len = shape.iter().try_fold(1usize, |len, &n| len.checked_mul(n))?;
        let bytes = len.checked_mul(usize::from(bits / 8))?;
        if shape.len() > DIMS || bytes == 0 || bytes > SMALL {
            return None;
        }
        let mut sizes = [0; DIMS];
        let mut strides = Strides::from_elem(1, shape.len());
        let mut stride = 1;
        for (axis, &n) in shape.iter().enumerate().rev() {
            (sizes[axis], strides[axis]) = (n as i64, stride);
            stride *= n as isize;
        }
        // One more, so that they can begin on a line.
        let lines = SmallVec::from_elem(Line([0; 64]), bytes.div_ceil(size_of::<Line>()) + 1);
        let tensor = DlTensor {
            data: std::ptr::null_mut(),
            device_type: CPU,
            device_id: 0,
            ndim: shape.len() as i32,
            code,
            bits,
            lanes: 1,
            shape: std::ptr::null(),
            // Which means C order, before version 1.2.
            strides: std::ptr::null(),
            byte_offset: 0,
        };
        let (context, flags) = (std::ptr::null_mut(), 0);
        let managed = Managed { major: 1, minor: 0, context, deleter: free, flags, tensor };
        let small = Box::into_raw(Box::new(Small { managed, sizes, lines }));
        let mut object = std::ptr::null_mut();
        // SAFETY: `small` is a box's, in which the sizes and elements stay until `free` is called;
        // the function takes such a description, which it then owns, and gives a new reference or
        // raises.
        let (object, data) = unsafe {
            let lines = &mut (*small).lines;
            let start = lines.as_mut_ptr().cast::<u8>();
            let data = start.wrapping_add(start.align_offset(size_of::<Line>()));
            (*small).managed.tensor.data = data.cast();
            (*small).managed.tensor.shape = (&raw const (*small).sizes).cast();
            (self.import)(small.cast(), &mut object);
            (Bound::from_owned_ptr_or_err(py, object.cast()), data.expose_provenance())
        };
        let seen = Seen { data, dtype, shape: Sizes::from_slice(shape), strides };
        Some(object.map(|object| (object, seen)))
    }
}

/// Bytes up to which a tensor is small. Above them, PyTorch's allocator costs little beside the
/// call; and whoever measures memory by PyTorch's means finds what matters.
const SMALL: usize = 1 << 12;

/// Axes up to which a tensor is small.
const DIMS: usize = 8;

/// A cache line, on which PyTorch's tensors begin, too. (To ask an allocator for that takes longer
/// than to skip what is before it.)
#[derive(Clone, Copy)]
struct Line(#[allow(dead_code)] [u8; 64]);

/// A small tensor's memory and what PyTorch is told of it.
#[repr(C)]
struct Small {
    /// The first field, whose address is that of all.
    managed: Managed,
    sizes: [i64; DIMS],
    /// The elements, in the same piece of memory if they are few.
    lines: SmallVec<[Line; 4]>,
}

/// Frees a small tensor.
unsafe extern "C" fn free(managed: *mut Managed) {
    // SAFETY: it is the first field of a `Small` that came from a box, and nobody uses it any more.
    drop(unsafe { Box::from_raw(managed.cast::<Small>()) });
}
