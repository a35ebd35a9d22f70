//! Conversion to bf16 by an instruction of AVX512-BF16, an extension that the CPU may lack; found
//! at run time.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether probabilities are converted by AVX512-BF16: [`UNKNOWN`], [`NO`] or [`YES`]. Found with
/// the kernel; until then only speed depends on it.
static CONVERTS: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

/// Finds out once: kernels are detected at every call that names one, and a choice by
/// [`use_bf16_conversions`] must stay.
pub(super) fn find_bf16_conversions() {
    if CONVERTS.load(Ordering::Relaxed) == UNKNOWN {
        use_bf16_conversions(true);
    }
}

/// Allows conversions by AVX512-BF16, if the CPU has it, or forbids them. Returns whether they were
/// allowed.
pub(crate) fn use_bf16_conversions(on: bool) -> bool {
    let found = if on && is_x86_feature_detected!("avx512bf16") { YES } else { NO };
    CONVERTS.swap(found, Ordering::Relaxed) == YES
}

/// The nearest bf16 of numbers that are 0 or normal. In assembly, because the kernel must not
/// require the instruction set.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn convert_bf16(v: __m512) -> __m256i {
    let converted;
    // SAFETY: one instruction between registers, which the CPU has if CONVERTS is YES.
    unsafe {
        asm!("vcvtneps2bf16 {:y}, {}", lateout(zmm_reg) converted, in(zmm_reg) v,
            options(pure, nomem, nostack, preserves_flags));
    }
    converted
}

/// Whether [`convert_bf16`] may be used.
#[inline(always)]
pub(super) fn converts_bf16() -> bool {
    CONVERTS.load(Ordering::Relaxed) == YES
}
