//! The plan of `softmax bench`: the same shapes on every machine, so that machines can be compared
//! and digests are known.

use softmax::Kernel;
use softmax::half::{bf16, f16};

use crate::operation::Operation;

/// One case to time.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The operation.
    pub operation: Operation,
    /// `f32`, `f64`, `f16` or `bf16`.
    pub dtype: &'static str,
    /// Size of the matrix.
    pub rows: usize,
    /// Size of the matrix.
    pub cols: usize,
    /// Threads that share the rows.
    pub threads: usize,
    /// The kernel.
    pub kernel: &'static Kernel,
}

impl Case {
    /// Bytes of an element.
    pub fn size(&self) -> usize {
        with_dtype!(self.dtype, T => size_of::<T>())
    }

    /// Bytes of the input and of the output.
    pub fn bytes(&self) -> u64 {
        let output = if self.operation.has_matrix() { self.cols } else { 1 };
        (self.rows * (self.cols + output) * self.size()) as u64
    }

    /// The shape, which does not depend on kernel and threads.
    pub fn shape(&self) -> (Operation, &'static str, usize, usize) {
        (self.operation, self.dtype, self.rows, self.cols)
    }
}

/// Evaluates an expression for the element type with this name, or for `f32` if there is none.
#[macro_export]
macro_rules! with_dtype {
    ($name:expr, $t:ident => $e:expr) => {
        match $name {
            "f64" => {
                type $t = f64;
                $e
            }
            "f16" => {
                type $t = $crate::plan::F16;
                $e
            }
            "bf16" => {
                type $t = $crate::plan::BF16;
                $e
            }
            _ => {
                type $t = f32;
                $e
            }
        }
    };
}
pub use crate::with_dtype;
/// Used by [`with_dtype`].
pub type F16 = f16;
/// Used by [`with_dtype`].
pub type BF16 = bf16;

/// The element types.
pub const DTYPES: [&str; 4] = ["f32", "f64", "f16", "bf16"];

/// Columns of matrices of all sizes.
const COLS: usize = 1024;

/// Rows from the first cache level to main memory: 32 KiB, 512 KiB, 8 MiB, 128 MiB and 1 GiB of
/// f32, input and output together.
const ROWS: [usize; 5] = [4, 64, 1024, 16_384, 131_072];

/// The least rows that are worth several threads.
const ROWS_OF_THREADS: usize = 1024;

/// Sizes at which the machine's limits are measured: those of f32 matrices.
pub fn footprints(quick: bool) -> impl Iterator<Item = usize> {
    rows(quick).map(|rows| rows * COLS * 8)
}

/// Whether a size is worth several threads.
pub fn is_for_threads(bytes: usize) -> bool {
    bytes >= ROWS_OF_THREADS * COLS * 8
}

fn rows(quick: bool) -> impl Iterator<Item = usize> {
    ROWS.into_iter().filter(move |&rows| !quick || rows != 16_384)
}

/// Lengths of rows, each with the fewest rows that make 4,096 elements.
fn lengths(quick: bool) -> impl Iterator<Item = (usize, usize)> {
    let all = (2..=11).map(|k| 1usize << (2 * k));
    let some = [16, 64, 256, 1024, 8192, 65_536, 1 << 20];
    let lengths: Vec<_> = if quick { some.to_vec() } else { all.collect() };
    lengths.into_iter().map(|cols| ((4096 / cols).max(1), cols))
}

/// The shape of a matrix for an operation, about as large as `rows` rows.
fn matrix(operation: Operation, rows: usize) -> (usize, usize) {
    match (operation, rows) {
        (Operation::Attention, 4) => (64, 64),
        (Operation::Attention, 64) => (256, 256),
        _ => (rows, COLS),
    }
}

/// The cases for these kernels, the fastest first, and these numbers of threads, 1 first. A quick
/// plan has every operation and type once, f32 softmax in all sizes, and only the two fastest
/// kernels in main memory.
pub fn cases(kernels: &[&'static Kernel], threads: &[usize], quick: bool) -> Vec<Case> {
    let mut shapes = Vec::new();
    for operation in Operation::ALL {
        for dtype in DTYPES {
            let main = operation == Operation::Softmax && dtype == "f32";
            let once = main || operation == Operation::Softmax || dtype == "f32";
            for rows in rows(quick).filter(|&rows| main || !quick || once && rows == 64) {
                let (rows, cols) = matrix(operation, rows);
                shapes.push((operation, dtype, rows, cols));
            }
            if main || !quick && operation == Operation::Softmax && dtype == "bf16" {
                shapes.extend(lengths(quick).map(|(rows, cols)| (operation, dtype, rows, cols)));
            }
        }
    }
    // Cases with the same input are together.
    shapes.sort_by_key(|&(operation, dtype, rows, cols)| {
        (dtype != "f32", dtype, cols, rows, operation.name())
    });
    shapes.dedup();
    let mut cases = Vec::new();
    for (operation, dtype, rows, cols) in shapes {
        for &n in threads {
            let all = Some(&n) == threads.last();
            let is_worth_it = rows >= ROWS_OF_THREADS && (operation == Operation::Softmax || all);
            if n > 1 && !is_worth_it {
                continue;
            }
            for (i, &kernel) in kernels.iter().enumerate() {
                if !quick || rows < ROWS[3] || i < 2 {
                    cases.push(Case { operation, dtype, rows, cols, threads: n, kernel });
                }
            }
        }
    }
    cases
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{digest, digests, expected, key};
    use crate::data::{logits, repeated};
    use crate::operation::{Side, pattern_rows, run, sampler};
    use softmax::Matrix;

    /// The digest of a case's result.
    fn digest_of(case: &Case) -> u64 {
        let Case { operation, dtype, rows, cols, .. } = *case;
        // Further rows repeat these.
        let rows = operation.period(rows, cols);
        let exec = softmax::Exec::new().kernel(case.kernel);
        let mut side = Side::new(operation, rows, cols);
        with_dtype!(dtype, T => {
            let height = pattern_rows(rows, cols);
            let pattern = logits::<T>(height * cols);
            if operation == Operation::Sample {
                // Every row has its own draw. Pattern by pattern, because all rows together are a
                // gigabyte.
                for (i, draws) in side.draws.chunks_mut(height).enumerate() {
                    let x = Matrix::new(&pattern[..draws.len() * cols], cols).expect("whole rows");
                    let sampler = sampler(exec).first_row((i * height) as u64);
                    sampler.sample(x, draws).expect("a valid call");
                }
                return digest::<T>(operation, rows, cols, &[], &side);
            }
            let mut x = vec![T::default(); rows * cols];
            repeated(&mut x, 0, &pattern);
            let mut y = x.clone();
            let y = if operation.has_matrix() { &mut y[..] } else { &mut y[..rows] };
            run(operation, exec, cols, &x, y, &mut side).expect("a valid call");
            digest(operation, rows, cols, y, &side)
        })
    }

    /// All digests, by the reference. (The largest ones, and those under emulators, by a kernel
    /// that is known to give its bits.)
    #[test]
    fn digests_are_those_of_the_reference() {
        let kernel = |name| softmax::kernel(name).expect("there is this kernel");
        let (scalar, default) =
            (kernel("scalar"), softmax::default_kernel().expect("there is one"));
        let quick = std::env::var_os("SOFTMAX_TEST_QUICK").is_some();
        let largest = if quick { 1 << 16 } else { 1 << 21 };
        let mut lines = std::collections::BTreeMap::new();
        for mut case in [true, false].into_iter().flat_map(|quick| cases(&[scalar], &[1], quick)) {
            let key = key(case.operation, case.dtype, case.rows, case.cols);
            let elements = case.operation.period(case.rows, case.cols) * case.cols;
            if lines.contains_key(&key) || quick && elements > 1 << 20 {
                continue;
            }
            if elements > largest {
                case.kernel = default;
            }
            let got = digest_of(&case);
            if std::env::var_os("SOFTMAX_WRITE_DIGESTS").is_none() {
                let want = expected(case.operation, case.dtype, case.rows, case.cols);
                assert_eq!(Some(got), want, "{key}{got:016x}");
            }
            lines.insert(key, got);
        }
        if std::env::var_os("SOFTMAX_WRITE_DIGESTS").is_some() {
            let text: String =
                lines.iter().map(|(key, got)| format!("{key}{got:016x}\n")).collect();
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/digests.txt"), text)
                .expect("the file can be written");
        } else if !quick {
            assert_eq!(lines.len(), digests().lines().count(), "a digest of nothing");
        }
    }

    #[test]
    fn quick_plans_are_small_and_have_everything() {
        let kernels: Vec<_> = softmax::kernels().iter().filter(|k| k.is_available()).collect();
        let quick = cases(&kernels, &[1, 2, 4], true);
        let full = cases(&kernels, &[1, 2, 4], false);
        assert!(quick.len() < full.len() / 4);
        for operation in Operation::ALL {
            assert!(quick.iter().any(|case| case.operation == operation));
        }
        for dtype in DTYPES {
            assert!(quick.iter().any(|case| case.dtype == dtype));
        }
        assert!(full.iter().all(|c| c.threads == 1 || is_for_threads(c.rows * c.cols * 8)));
        for threads in [1, 2, 4] {
            let memory = |c: &&Case| c.threads == threads && c.bytes() == 1 << 30;
            assert!(quick.iter().any(|c| memory(&c)), "{threads} threads");
        }
    }
}
