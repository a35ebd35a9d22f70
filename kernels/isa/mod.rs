//! CPUs: what one must offer, and how each does it.

#[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
pub(crate) mod avx2;
#[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
pub(crate) mod avx512;
#[cfg(all(target_arch = "aarch64", not(any(softmax_portable, test))))]
pub(crate) mod neon;
pub(crate) mod portable;
mod registers;
pub(crate) mod vector;
