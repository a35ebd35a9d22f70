//! The machine's own limits: a copy with non-temporal stores, which does not read what it overwrites, and
//! a scale in place; by the widest vectors of the CPU.

use std::ffi::CStr;

pub struct Limits {
    /// The stores that `copy` uses.
    pub stores: &'static CStr,
    copy: unsafe fn(&[f32], &mut [f32]),
    scale: unsafe fn(&mut [f32], f32),
    read: unsafe fn(&[f32]) -> f32,
}

impl Limits {
    /// Copies `x` to `y`. Panics unless `y` is as long and starts at a multiple of 64 bytes.
    pub fn copy(&self, x: &[f32], y: &mut [f32]) {
        assert_eq!((x.len(), 0), (y.len(), y.as_ptr().addr() % 64));
        // SAFETY: `detect` saw that this CPU has what the function needs; length and alignment were checked.
        unsafe { (self.copy)(x, y) }
    }

    /// Multiplies every element by `factor`.
    pub fn scale(&self, y: &mut [f32], factor: f32) {
        // SAFETY: `detect` saw that this CPU has what the function needs.
        unsafe { (self.scale)(y, factor) }
    }

    /// Reads all of `x`: the largest.
    pub fn read(&self, x: &[f32]) -> f32 {
        // SAFETY: `detect` saw that this CPU has what the function needs.
        unsafe { (self.read)(x) }
    }

    #[cfg(target_arch = "x86_64")]
    pub fn detect() -> Self {
        use x86::*;
        if is_x86_feature_detected!("avx512f") {
            Self { stores: c"AVX-512 stores", copy: copy512, scale: scale512, read: read512 }
        } else if is_x86_feature_detected!("avx") {
            Self { stores: c"AVX stores", copy: copy256, scale: scale256, read: read256 }
        } else {
            Self { stores: c"SSE stores", copy: copy128, scale: scale128, read: read128 }
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    pub fn detect() -> Self {
        Self {
            stores: c"only memcpy, because this is not x86-64",
            copy: |x, y| y.copy_from_slice(x),
            scale: |y, factor| y.iter_mut().for_each(|v| *v *= factor),
            read: |x| x.iter().fold(0.0, |a: f32, b| a.max(*b)),
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    macro_rules! limits {
        ($copy:ident, $scale:ident, $read:ident, $feature:literal, $lanes:literal, $load:ident, $stream:ident, $max:ident, $store:ident) => {
            /// # Safety
            /// `y` is as long as `x` and starts at a multiple of a vector's size.
            #[target_feature(enable = $feature)]
            pub unsafe fn $copy(x: &[f32], y: &mut [f32]) {
                let (x, x_rest) = x.as_chunks::<$lanes>();
                let (y, y_rest) = y.as_chunks_mut::<$lanes>();
                for (x, y) in x.iter().zip(y) {
                    // SAFETY: both are one vector long; whole vectors lie before that in `y`, so it is aligned.
                    unsafe { $stream(y.as_mut_ptr(), $load(x.as_ptr())) };
                }
                _mm_sfence();
                y_rest.copy_from_slice(x_rest);
            }

            #[target_feature(enable = $feature)]
            pub fn $scale(y: &mut [f32], factor: f32) {
                y.iter_mut().for_each(|v| *v *= factor);
            }

            #[target_feature(enable = $feature)]
            #[target_feature(enable = $feature)]
            pub fn $read(x: &[f32]) -> f32 {
                // Four vectors at a time, so that they do not wait for each other.
                let (x, rest) = x.as_chunks::<{ 4 * $lanes }>();
                // SAFETY: there are four vectors.
                let load =
                    |x: &[f32; 4 * $lanes], k: usize| unsafe { $load(x.as_ptr().add(k * $lanes)) };
                let mut max = [load(&[0.0; 4 * $lanes], 0); 4];
                for x in x {
                    for k in 0..4 {
                        max[k] = $max(max[k], load(x, k));
                    }
                }
                let mut lanes = [0.0f32; $lanes];
                let max = $max($max(max[0], max[1]), $max(max[2], max[3]));
                // SAFETY: there is room for a vector.
                unsafe { $store(lanes.as_mut_ptr(), max) };
                lanes.iter().chain(rest).fold(0.0, |a: f32, b| a.max(*b))
            }
        };
    }

    limits!(
        copy512,
        scale512,
        read512,
        "avx512f",
        16,
        _mm512_loadu_ps,
        _mm512_stream_ps,
        _mm512_max_ps,
        _mm512_storeu_ps
    );
    limits!(
        copy256,
        scale256,
        read256,
        "avx",
        8,
        _mm256_loadu_ps,
        _mm256_stream_ps,
        _mm256_max_ps,
        _mm256_storeu_ps
    );
    limits!(
        copy128,
        scale128,
        read128,
        "sse2",
        4,
        _mm_loadu_ps,
        _mm_stream_ps,
        _mm_max_ps,
        _mm_storeu_ps
    );
}
