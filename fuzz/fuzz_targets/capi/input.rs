//! Converts the fuzzer's bytes to arguments of calls. Without bytes, everything is as plain as
//! possible.

use std::ffi::c_void;
use std::fmt::Debug;

use arbitrary::Unstructured;
use half::{bf16, f16};
use softmax_capi::*;

use crate::memory::{Memory, Written};

/// More than any memory: the library must refuse such a size.
pub const TOO_MANY: usize = 1 << 63;

/// The bytes and the memory of one call.
pub struct Input<'a> {
    pub bytes: Unstructured<'a>,
    pub memory: &'a mut Memory,
    /// The structs of the call, to be printed.
    pub structs: Vec<Box<dyn Debug>>,
}

/// A matrix as the call gets it.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    pub matrix: softmax_matrix,
    pub pointer: *const softmax_matrix,
    /// Its rows.
    pub rows: Written,
}

/// The place of an output relative to an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Apart,
    InPlace,
    /// In the gaps between the rows of the input.
    Between,
    /// Shifted by less than its length.
    Across,
}

pub fn size_of_dtype(dtype: softmax_dtype) -> usize {
    match dtype {
        SOFTMAX_F64 => 8,
        SOFTMAX_F16 | SOFTMAX_BF16 => 2,
        SOFTMAX_BOOL => 1,
        // Nothing is read for an unknown dtype.
        _ => 4,
    }
}

/// An element as a number.
///
/// # Safety
/// It is there.
pub unsafe fn number(p: *const u8, dtype: softmax_dtype) -> f64 {
    // SAFETY: as this function's.
    unsafe {
        match dtype {
            SOFTMAX_F64 => p.cast::<f64>().read(),
            SOFTMAX_F16 => p.cast::<f16>().read().into(),
            SOFTMAX_BF16 => p.cast::<bf16>().read().into(),
            _ => p.cast::<f32>().read().into(),
        }
    }
}

/// A small generator, so that few of the fuzzer's bytes fill a large matrix.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Around 0, mostly within 3.
    fn normal(&mut self) -> f64 {
        (0..4).map(|_| (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0).sum::<f64>() * 1.5
    }
}

const SPECIAL: [f64; 12] = [
    f64::NEG_INFINITY,
    f64::INFINITY,
    f64::NAN,
    0.0,
    -0.0,
    f64::MAX,
    f64::MIN,
    f64::MIN_POSITIVE,
    1e-45,
    -1e-320,
    65504.0,
    1e38,
];

impl Input<'_> {
    pub fn u64(&mut self) -> u64 {
        self.bytes.arbitrary().unwrap_or(0)
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes.arbitrary().unwrap_or(0)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.bytes.int_in_range(0..=n - 1).unwrap_or(0)
    }

    /// Once in `n` times.
    pub fn rarely(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Any number, or one of these.
    pub fn float(&mut self, likely: &[f64]) -> f64 {
        if self.rarely(6) { f64::from_bits(self.u64()) } else { self.pick(likely) }
    }

    /// A size; rarely a far too large one.
    pub fn size(&mut self, n: usize) -> usize {
        if self.rarely(40) { self.huge() } else { self.below(n) }
    }

    pub fn huge(&mut self) -> usize {
        TOO_MANY | (if self.below(2) == 0 { usize::MAX } else { self.u64() as usize })
    }

    pub fn dtype(&mut self) -> softmax_dtype {
        if self.rarely(60) {
            self.pick(&[SOFTMAX_BOOL, 5, u32::MAX])
        } else {
            self.pick(&[SOFTMAX_F32, SOFTMAX_F64, SOFTMAX_F16, SOFTMAX_BF16])
        }
    }

    pub fn shape(&mut self) -> (usize, usize) {
        match self.below(32) {
            // Short rows, which are computed in groups.
            16..20 => (self.below(200), self.below(40)),
            20..24 => (1 + self.below(3), 4090 + self.below(4120)),
            24..26 => (1 + self.below(2), 8190 + self.below(3 * 4096)),
            26 => (self.huge(), 0),
            27 => (0, self.huge()),
            28..32 => (self.below(4), self.below(1100)),
            _ => (self.below(12), self.below(80)),
        }
    }

    /// Whether memory ends at a guard page: mostly yes.
    pub fn at_end(&mut self) -> bool {
        self.below(4) != 3
    }

    /// Room for `n` elements of this size, filled with canaries; rarely null or not aligned.
    pub fn room(&mut self, n: usize, size: usize) -> *mut u8 {
        match self.below(48) {
            46 => return std::ptr::null_mut(),
            47 if size > 1 => {
                let shift = 1 + self.below(size - 1);
                let at_end = self.below(2) == 0;
                return self.memory.take(bytes(n, size), at_end, shift);
            }
            _ => {}
        }
        let at_end = self.at_end();
        self.memory.take(bytes(n, size), at_end, 0)
    }

    /// An array that a call writes; rarely one that overlaps this input, so that it must be
    /// refused.
    pub fn output<T>(&mut self, n: usize, across: Option<&Arg>) -> *mut T {
        if let Some(arg) = across
            && self.rarely(24)
            && arg.rows.rows > 0
            && bytes(n, size_of::<T>()) <= arg.rows.len
        {
            return arg.rows.start.cast();
        }
        self.room(n, size_of::<T>()).cast()
    }

    /// As [`Input::output`], or null.
    pub fn output_or_null<T>(&mut self, n: usize, across: Option<&Arg>) -> *mut T {
        if self.below(2) == 0 { std::ptr::null_mut() } else { self.output(n, across) }
    }

    /// Fills memory with elements.
    ///
    /// # Safety
    /// They are there, or the pointer is null; it need not be aligned.
    pub unsafe fn fill(&mut self, start: *mut u8, n: usize, dtype: softmax_dtype) {
        let (kind, seed) = (self.below(12), self.byte());
        let mut noise = Noise(seed.into());
        let size = size_of_dtype(dtype);
        if start.is_null() {
            return;
        }
        let own: [f64; 4] = [(); 4].map(|()| if kind == 5 { self.float(&SPECIAL) } else { 0.0 });
        for i in 0..n {
            let random = noise.next();
            let value = match kind {
                // Bit patterns.
                0 => None,
                1 => Some(f64::from(seed)),
                2 if random.is_multiple_of(16) => Some(SPECIAL[(random >> 8) as usize % 12]),
                3 if random.is_multiple_of(3) => Some(f64::NEG_INFINITY),
                4 => Some(noise.normal() * 1e4),
                5 => Some(own[random as usize % 4]),
                6 => Some(f64::NEG_INFINITY),
                7 => Some(noise.normal() * 90.0),
                8 if i == n / 2 => Some(60000.0),
                _ => Some(noise.normal()),
            };
            // SAFETY: so many elements there are.
            unsafe {
                let p = start.add(i * size);
                match (dtype, value) {
                    (_, None) => p.copy_from_nonoverlapping((&raw const random).cast(), size),
                    (SOFTMAX_F64, Some(v)) => p.cast::<f64>().write_unaligned(v),
                    (SOFTMAX_F16, Some(v)) => p.cast::<f16>().write_unaligned(f16::from_f64(v)),
                    (SOFTMAX_BF16, Some(v)) => p.cast::<bf16>().write_unaligned(bf16::from_f64(v)),
                    (SOFTMAX_BOOL, Some(_)) => p.write((random & 1) as u8),
                    (_, Some(v)) => p.cast::<f32>().write_unaligned(v as f32),
                }
            }
        }
    }

    /// An array of elements.
    pub fn elements(&mut self, n: usize, dtype: softmax_dtype) -> *mut c_void {
        let p = self.room(n, size_of_dtype(dtype));
        if n < TOO_MANY {
            // SAFETY: that is how much was taken.
            unsafe { self.fill(p, n, dtype) };
        }
        p.cast()
    }

    /// An array of other numbers, each made by the function.
    pub fn array<T>(&mut self, n: usize, mut of: impl FnMut(&mut Self, usize) -> T) -> *mut T {
        let p = self.room(n, size_of::<T>()).cast::<T>();
        for i in 0..if p.is_null() || n >= TOO_MANY { 0 } else { n } {
            // SAFETY: that is how much was taken.
            unsafe { p.add(i).write_unaligned(of(self, i)) };
        }
        p
    }

    /// A struct that the call reads: rarely null, of another size, or not aligned.
    pub fn descriptor<D: Copy + Debug + 'static>(&mut self, value: D) -> *mut D {
        self.structs.push(Box::new(value));
        let known = size_of::<D>();
        // The first field of all.
        let (size, room, tail) = match self.below(96) {
            88 => return std::ptr::null_mut(),
            89 => (8, 8, 0),
            90 => (known - 8, known - 8, 0),
            91 | 92 => (known + 16, known + 16, 0),
            93 => (known + 8, known + 8, 1),
            94 => (self.pick(&[0, 4097, usize::MAX]), known, 0),
            _ => (known, known, 0),
        };
        let shift = if self.rarely(96) { 1 + self.below(7) } else { 0 };
        let at_end = self.at_end();
        let p = self.memory.take(room, at_end, shift);
        // SAFETY: there are `room` bytes, of which the first eight are the size.
        unsafe {
            p.write_bytes(0, room);
            p.copy_from_nonoverlapping((&raw const value).cast(), room.min(known));
            p.copy_from_nonoverlapping((&raw const size).cast(), 8);
            if tail > 0 {
                p.add(room - 1).write(tail);
            }
        }
        p.cast()
    }

    /// A matrix with elements; rarely an invalid one.
    pub fn matrix(&mut self, dtype: softmax_dtype, (rows, cols): (usize, usize)) -> Arg {
        let gap = if self.below(3) == 2 { 1 + self.below(9) } else { 0 };
        self.matrix_with_gap(dtype, (rows, cols), gap)
    }

    fn matrix_with_gap(
        &mut self,
        dtype: softmax_dtype,
        (rows, cols): (usize, usize),
        gap: usize,
    ) -> Arg {
        let size = size_of_dtype(dtype);
        let mut stride = cols.saturating_add(gap);
        if self.rarely(64) {
            stride = self.below(cols.clamp(1, 4096));
        }
        let empty = rows == 0 || cols == 0;
        let n = match empty {
            true => 0,
            false => (rows - 1).saturating_mul(stride).saturating_add(cols),
        };
        if n > Memory::MOST / size - 64 {
            // The shape of another matrix with a larger type.
            return self.matrix_with_gap(dtype, (rows.min(10), cols.min(1000)), 0);
        }
        let data = self.room(n, size);
        // SAFETY: that is how much was taken.
        unsafe { self.fill(data, n, dtype) };
        let mut matrix = softmax_matrix {
            size: size_of::<softmax_matrix>(),
            data: data.cast(),
            dtype,
            rows,
            cols,
            stride,
        };
        match self.below(128) {
            // Sizes that overflow.
            124 if !empty => matrix.rows = self.huge(),
            125 if !empty => matrix.cols = self.huge(),
            126 if !empty && rows > 1 => matrix.stride = self.huge(),
            127 if !empty => (matrix.cols, matrix.stride) = (self.huge(), self.huge()),
            _ => {}
        }
        self.arg(matrix)
    }

    fn arg(&mut self, matrix: softmax_matrix) -> Arg {
        let softmax_matrix { data, rows, cols, stride, dtype, .. } = matrix;
        let size = size_of_dtype(dtype);
        // Sizes that overflow have no rows.
        let most = rows.max(cols).max(if rows > 1 { stride } else { 0 });
        let written = Written {
            start: data.cast(),
            rows: if cols == 0 || most >= TOO_MANY { 0 } else { rows },
            len: cols.wrapping_mul(size),
            stride: stride.wrapping_mul(size),
        };
        Arg { matrix, pointer: self.descriptor(matrix), rows: written }
    }

    /// A shape that is mostly this one.
    pub fn like(&mut self, (rows, cols): (usize, usize)) -> (usize, usize) {
        match self.below(64) {
            62 => (rows.min(100), cols.min(1000) + 1),
            63 => (rows.min(100) + 1, cols.min(1000)),
            _ => (rows, cols),
        }
    }

    /// An input and an output of this type and mostly of the same shape.
    pub fn pair(
        &mut self,
        dtypes: (softmax_dtype, softmax_dtype),
        shape: (usize, usize),
    ) -> (Arg, Arg, Layout) {
        let place = match self.below(12) {
            6..9 => Layout::InPlace,
            9 => Layout::Between,
            10 => Layout::Across,
            _ => Layout::Apart,
        };
        let (rows, cols) = shape;
        let one = dtypes.0 == dtypes.1;
        match place {
            Layout::InPlace => {
                let x = self.matrix(dtypes.0, shape);
                let y = softmax_matrix { dtype: dtypes.1, ..x.matrix };
                // Other dtypes in place must not have larger elements.
                if !one && size_of_dtype(dtypes.1) > size_of_dtype(dtypes.0) {
                    let y = self.matrix(dtypes.1, shape);
                    return (x, y, Layout::Apart);
                }
                let y = self.arg(y);
                (x, y, if one { place } else { Layout::Across })
            }
            Layout::Between | Layout::Across if one && rows > 0 && cols > 0 && cols < 600 => {
                let rows = rows.min(24);
                let x = self.matrix_with_gap(dtypes.0, (rows, 2 * cols), 3);
                if x.matrix.cols != 2 * cols || x.matrix.rows != rows {
                    let y = self.matrix(dtypes.1, shape);
                    return (x, y, Layout::Apart);
                }
                // Each has half of the columns.
                let narrow = softmax_matrix { cols, ..x.matrix };
                let at = if place == Layout::Between { cols } else { self.below(cols + 1) };
                let data = narrow.data.cast::<u8>().wrapping_add(at * size_of_dtype(dtypes.0));
                let data = if narrow.data.is_null() { narrow.data } else { data.cast() };
                let (x, y) = (self.arg(narrow), self.arg(softmax_matrix { data, ..narrow }));
                let place = if at == 0 { Layout::InPlace } else { place };
                (x, y, place)
            }
            _ => {
                let x = self.matrix(dtypes.0, shape);
                let like = self.like(shape);
                (x, self.matrix(dtypes.1, like), Layout::Apart)
            }
        }
    }

    /// A text with a 0 at its end.
    pub fn string(&mut self, text: &[u8]) -> *const std::ffi::c_char {
        let at_end = self.at_end();
        let p = self.memory.take(text.len() + 1, at_end, 0);
        // SAFETY: that is how much was taken.
        unsafe {
            p.copy_from_nonoverlapping(text.as_ptr(), text.len());
            p.add(text.len()).write(0);
        }
        p.cast()
    }
}

/// Sizes beyond the address space get no memory.
fn bytes(n: usize, size: usize) -> usize {
    if n >= TOO_MANY { 0 } else { n * size }
}
