//! The C ABI of the crate [`softmax`]: `include/softmax.h` is generated from this file and its
//! neighbours. From Rust use that crate.
//!
//! # Safety
//!
//! For all functions: pointers are null or valid, during the call, for what the function and its
//! structs say of them; nobody writes what is read, and nobody else uses what is written. The
//! functions check what can be checked: null, alignment, sizes, overlaps.
#![allow(non_camel_case_types)]

mod along;
mod attention;
mod entropy;
mod kl;
mod loss;
mod mask;
mod online;
mod options;
mod per_row;
mod ragged;
mod raw;
mod route;
mod rows;
mod sample;
mod speculative;
mod status;
mod tensors;

use std::ffi::{CStr, c_char};

pub use along::*;
pub use attention::*;
pub use entropy::*;
pub use kl::*;
pub use loss::*;
pub use mask::*;
pub use online::*;
pub use options::*;
pub use per_row::*;
pub use ragged::*;
pub use raw::*;
pub use route::*;
pub use rows::*;
pub use sample::*;
pub use speculative::*;
pub use status::{softmax_status, softmax_status_message};

pub use tensors::*;

use options::{call, plain_call};
use raw::{Region, disjoint};
use status::Reason;

/// The version of the library, like "0.1.0". Never null.
#[unsafe(no_mangle)]
pub extern "C" fn softmax_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// The name of a kernel with a 0 at its end.
fn name_of(kernel: &softmax::Kernel) -> &'static CStr {
    match kernel.name() {
        "avx512" => c"avx512",
        "avx2" => c"avx2",
        "neon" => c"neon",
        "portable" => c"portable",
        "scalar" => c"scalar",
        _ => c"unknown",
    }
}

/// The name of kernel number `index` among those that are compiled for this architecture, the
/// fastest first, and whether (not 0) this CPU can run it. Each is written unless it is null.
/// `SOFTMAX_STATUS_LENGTH` if there are fewer kernels.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_kernel(
    index: usize,
    name: *mut *const c_char,
    available: *mut i32,
) -> softmax_status {
    plain_call(|| {
        let kernels = softmax::kernels();
        let len = kernels.len();
        let kernel = kernels.get(index).ok_or(Reason::NoKernel { index, len })?;
        // Checked before either is written.
        disjoint(&[Region::of("name", name, 1)?, Region::of("available", available, 1)?], &[])?;
        // SAFETY: as this function's.
        unsafe {
            if !name.is_null() {
                write("name", name, name_of(kernel).as_ptr())?;
            }
            if !available.is_null() {
                write("available", available, kernel.is_available().into())?;
            }
        }
        Ok(())
    })
}

/// The name of the kernel that calls use with these options.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_kernel_in_use(
    name: *mut *const c_char,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let shape = softmax::Shape::new(1, 1);
            let plan = call.given.exec.plan::<f32>(softmax::Op::Softmax, shape)?;
            write("name", name, name_of(plan.kernel()).as_ptr())
        })
    }
}
