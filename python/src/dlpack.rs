//! DLPack's table of C functions (`__dlpack_c_exchange_api__`), by which PyTorch tells of a tensor
//! within nanoseconds. Source: dlpack.h, version 1.3.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyType};

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

type Read = unsafe extern "C" fn(*mut c_void, *mut DlTensor) -> c_int;

/// `DLPackExchangeAPI`. Nothing is known here of the functions that are not called.
#[repr(C)]
struct Table {
    major: u32,
    minor: u32,
    older: *const c_void,
    allocate: *const c_void,
    export: *const c_void,
    import: *const c_void,
    read: Option<Read>,
}

/// How tensors of a class are looked at.
pub struct Exchange {
    read: Read,
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
        Some(Self { read: table.read?, _capsule: object.unbind() })
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
        const CPU: i32 = 1;
        let dtype = match (seen.code, seen.bits, seen.lanes) {
            (2, 16, 1) => Dtype::F16,
            (2, 32, 1) => Dtype::F32,
            (2, 64, 1) => Dtype::F64,
            (4, 16, 1) => Dtype::Bf16,
            (0, 64, 1) => Dtype::I64,
            (6, 8, 1) => Dtype::Bool,
            _ => return None,
        };
        let dims = usize::try_from(seen.ndim).ok()?;
        if seen.device_type != CPU || (dims > 0 && (seen.shape.is_null() || seen.strides.is_null()))
        {
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
}
