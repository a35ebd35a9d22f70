//! The machine's own limits: loops that only pass over memory, and arithmetic in registers.

use std::fmt;

use softmax::Kernel;

/// A loop over memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loop {
    /// Reads: the largest element.
    Read,
    /// Copies as the system's `memcpy` does.
    Copy,
    /// Copies by stores past the caches, which do not read what they overwrite.
    CopyNt,
    /// Multiplies in place.
    Scale,
}

impl Loop {
    /// All loops.
    pub const ALL: [Self; 4] = [Self::Read, Self::Copy, Self::CopyNt, Self::Scale];

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Copy => "copy",
            Self::CopyNt => "copy_nt",
            Self::Scale => "scale",
        }
    }

    /// Number of elements of the loop's input if input and output together have this number of
    /// bytes.
    pub fn elements(self, bytes: usize) -> usize {
        let each = if matches!(self, Self::Copy | Self::CopyNt) { 8 } else { 4 };
        bytes / each
    }

    /// Bytes that one pass reads and writes.
    pub fn traffic(self, elements: usize) -> u64 {
        elements as u64 * if self == Self::Read { 4 } else { 8 }
    }

    /// Does one pass with a kernel's vectors. Loops over a single matrix use `y`.
    pub fn run(self, kernel: &Kernel, x: &[f32], y: &mut [f32]) {
        let limits = softmax::internal::limits(kernel);
        match self {
            Self::Read => {
                std::hint::black_box(limits.read(y));
            }
            Self::Copy => y.copy_from_slice(x),
            Self::CopyNt => limits.copy(x, y),
            // 1, so that repeated passes leave normal numbers.
            Self::Scale => limits.scale(y, 1.0),
        }
    }

    /// Checks that the loop does what it should. It writes `y`.
    pub fn is_right(self, kernel: &Kernel) -> bool {
        let x: Vec<f32> = (0..1000u16).map(f32::from).collect();
        let mut y =
            if self == Self::Copy || self == Self::CopyNt { vec![0.0; 1000] } else { x.clone() };
        self.run(kernel, &x, &mut y);
        x == y
    }
}

impl fmt::Display for Loop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Does arithmetic in registers for `turns` turns. Returns the number of operations on one element.
pub fn arithmetic(kernel: &Kernel, double: bool, turns: usize) -> u64 {
    let limits = softmax::internal::limits(kernel);
    if double { limits.arithmetic_f64(turns) } else { limits.arithmetic_f32(turns) }
}
