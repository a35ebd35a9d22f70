//! Conversion to bf16 by an instruction, an extension of AVX-512 that the CPU may lack: it is found
//! while the program runs.

use std::arch::asm;
use std::arch::x86_64::*;
use std::sync::atomic::{AtomicU8, Ordering};

/// Whether probabilities become bf16 by AVX512-BF16: [`UNKNOWN`], [`NO`] or [`YES`]. Found when the
/// kernel is; until then nothing depends on it but speed.
static CONVERTS: AtomicU8 = AtomicU8::new(UNKNOWN);
const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

/// Finds out, once: kernels are looked for at every call that names one, and a choice must stay.
pub(super) fn find_bf16_conversions() {
    if CONVERTS.load(Ordering::Relaxed) == UNKNOWN {
        use_bf16_conversions(true);
    }
}

/// Lets conversions be done by AVX512-BF16, if the CPU has it, or not. Whether they were before.
pub(crate) fn use_bf16_conversions(on: bool) -> bool {
    let found = if on && is_x86_feature_detected!("avx512bf16") { YES } else { NO };
    CONVERTS.swap(found, Ordering::Relaxed) == YES
}

/// The nearest bf16 of numbers that are 0 or normal. In assembly, as the kernel does not need the
/// instruction set.
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
