//! The machine's own limits: memory gone over by loops that do nothing else, and arithmetic in
//! registers.

use std::fmt;

use softmax::Kernel;

/// A loop over memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Loop {
    /// Reads: the largest element.
    Read,
    /// Copies, as the system's `memcpy` does it.
    Copy,
    /// Copies past the caches, by stores that do not read what they overwrite.
    CopyNt,
    /// Multiplies in place.
    Scale,
}

impl Loop {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Copy, Self::CopyNt, Self::Scale];

    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Copy => "copy",
            Self::CopyNt => "copy_nt",
            Self::Scale => "scale",
        }
    }

    /// How many elements the loop goes over in so many bytes: of the input, and of an output that
    /// is elsewhere.
    pub fn elements(self, bytes: usize) -> usize {
        let each = if matches!(self, Self::Copy | Self::CopyNt) { 8 } else { 4 };
        bytes / each
    }

    /// Bytes that one pass over so many elements reads and writes.
    pub fn traffic(self, elements: usize) -> u64 {
        elements as u64 * if self == Self::Read { 4 } else { 8 }
    }

    /// One pass, by a kernel's vectors. The loops that have one matrix go over `y`.
    pub fn run(self, kernel: &Kernel, x: &[f32], y: &mut [f32]) {
        let limits = softmax::internal::limits(kernel);
        match self {
            Self::Read => {
                std::hint::black_box(limits.read(y));
            }
            Self::Copy => y.copy_from_slice(x),
            Self::CopyNt => limits.copy(x, y),
            // Near 1, so that repeated passes leave numbers that are normal.
            Self::Scale => limits.scale(y, 1.0),
        }
    }

    /// Checks that the loop does what it says. It writes `y`.
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

/// Arithmetic in registers for so many turns, and how many operations of one element that was.
pub fn arithmetic(kernel: &Kernel, double: bool, turns: usize) -> u64 {
    let limits = softmax::internal::limits(kernel);
    if double { limits.arithmetic_f64(turns) } else { limits.arithmetic_f32(turns) }
}
