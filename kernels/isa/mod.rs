//! CPUs: the operations that a kernel needs, and how each CPU does them.

#[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
pub(crate) mod avx2;
#[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
pub(crate) mod avx512;
#[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
mod avx512_bf16;
#[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
mod avx512_half;
#[cfg(all(target_arch = "aarch64", not(any(softmax_portable, test))))]
pub(crate) mod neon;
pub(crate) mod portable;
mod registers;
pub(crate) mod short;
pub(crate) mod vector;

/// Allows or forbids the conversion of probabilities to bf16 by an instruction, where kernel and
/// CPU have one. Returns whether it was allowed before. Bits do not depend on it.
#[doc(hidden)]
pub fn use_bf16_conversions(on: bool) -> bool {
    #[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
    let before = avx512_bf16::use_bf16_conversions(on);
    #[cfg(not(all(target_arch = "x86_64", not(any(softmax_portable, test)))))]
    let (_, before) = (on, false);
    before
}
