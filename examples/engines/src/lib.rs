//! Functions that the examples share: logits that are the same everywhere, checks, medians of
//! interleaved rounds.

use std::time::Instant;

use softmax::Element;
use softmax::half::{bf16, f16};

/// The error of programs here.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// An element whose bits can be compared.
pub trait Bits: Element {
    /// The bits.
    fn bits(self) -> u64;
    /// The distance to the next number of the type.
    fn ulp(self) -> f64;
}

macro_rules! bits {
    ($($t:ty: $mantissa:literal, $min_exp:literal;)*) => {
        $(impl Bits for $t {
            fn bits(self) -> u64 {
                self.to_bits().into()
            }
            fn ulp(self) -> f64 {
                let exponent = (self.to_f64().to_bits() >> 52 & 0x7ff) as i32 - 1023;
                2f64.powi(exponent.max($min_exp) - $mantissa)
            }
        })*
    };
}

bits! {
    f32: 23, -126;
    f64: 52, -1022;
    f16: 10, -14;
    bf16: 7, -126;
}

/// The logit of a place: roughly normal, with a standard deviation of 4. A place always has the
/// same logit.
pub fn logit<T: Element>(row: usize, col: usize) -> T {
    // splitmix64.
    let mut z = ((row as u64) << 32 | col as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    // The sum of four uniform numbers has a variance of 1/3.
    let sum: f64 = (0..4).map(|i| (z >> (16 * i) & 0xffff) as f64 / 65536.0).sum();
    T::from_f64((sum - 2.0) * 4.0 * 3f64.sqrt())
}

/// `rows * cols` logits.
pub fn logits<T: Element>(rows: usize, cols: usize) -> Vec<T> {
    (0..rows).flat_map(|row| (0..cols).map(move |col| logit(row, col))).collect()
}

/// The largest errors of a softmax of rows: in ULP of the element type, and of a probability.
#[derive(Clone, Copy, Debug, Default)]
struct Errors {
    /// The error in ULP of the exact result.
    ulp: f64,
    absolute: f64,
}

/// The errors of `y` as the softmax of the rows of `x`. The reference, in f64, loses nothing in
/// subtractions and sums, so it is good to 2 ULP of f64.
fn errors<T: Bits>(x: &[T], y: &[T], cols: usize) -> Errors {
    let mut errors = Errors::default();
    for (x, y) in x.chunks(cols).zip(y.chunks(cols)) {
        let max = x.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
        let exps: Vec<f64> = x
            .iter()
            .map(|x| {
                let (d, rest) = two_sum(x.to_f64(), -max);
                d.exp() * (1.0 + rest)
            })
            .collect();
        let (sum, rest) = exps.iter().fold((0.0, 0.0), |(sum, rest), &e| {
            let (sum, lost) = two_sum(sum, e);
            (sum, rest + lost)
        });
        for (y, e) in y.iter().zip(exps) {
            let exact = e / (sum + rest);
            let off = (y.to_f64() - exact).abs();
            // NaN must not pass.
            let off = if off.is_nan() { f64::INFINITY } else { off };
            errors.ulp = errors.ulp.max(off / T::from_f64(exact).ulp());
            errors.absolute = errors.absolute.max(off);
        }
    }
    errors
}

/// A sum and its rounding error (Knuth).
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// Fails unless both are the same bits.
pub fn check_bits<T: Bits>(got: &[T], want: &[T], what: &str) -> Result<(), Error> {
    if got.len() != want.len() {
        return Err(format!("{what}: {} elements, not {}", got.len(), want.len()).into());
    }
    match got.iter().zip(want).position(|(g, w)| g.bits() != w.bits()) {
        Some(i) => Err(format!("{what}: element {i} is {:?}, not {:?}", got[i], want[i]).into()),
        None => Ok(()),
    }
}

/// The largest errors that pass, in ULP.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The bound of the library: its promise, and in f64 the error of the reference here.
    pub ours: f64,
    /// The bound of the engine: at least twice the error that was seen, so that another softmax, or
    /// one of other rows, does not pass.
    pub peer: f64,
}

/// Prints the errors of the library and of the engine `peer`, and fails if they exceed the bounds.
pub fn check_errors<T: Bits>(
    x: &[T],
    ours: &[T],
    (peer, theirs): (&str, &[T]),
    cols: usize,
    bounds: Bounds,
    what: &str,
) -> Result<(), Error> {
    let (ours, theirs) = (errors(x, ours, cols), errors(x, theirs, cols));
    println!(
        "{what}: bits of softmax_rows; largest error {:.2} ULP ({peer}: {:.0}), of a probability {:.1e} ({peer}: {:.1e})",
        ours.ulp, theirs.ulp, ours.absolute, theirs.absolute,
    );
    for (of, errors, bound) in [("softmax", ours, bounds.ours), (peer, theirs, bounds.peer)] {
        if errors.ulp > bound {
            return Err(format!("{what}: {of} is {} ULP off, more than {bound}", errors.ulp).into());
        }
    }
    Ok(())
}

/// The median.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median seconds of each, over rounds in which each runs once, after one round that does not
/// count. Each returns its own seconds, so that it can prepare something before the clock starts
/// (see [`seconds`]).
pub fn interleaved(
    rounds: usize,
    runs: &mut [&mut dyn FnMut() -> Result<f64, Error>],
) -> Result<Vec<f64>, Error> {
    let mut times = vec![Vec::with_capacity(rounds); runs.len()];
    for round in 0..=rounds {
        for (run, times) in runs.iter_mut().zip(&mut times) {
            let seconds = run()?;
            if round > 0 {
                times.push(seconds);
            }
        }
    }
    Ok(times.iter_mut().map(|times| median(times)).collect())
}

/// The seconds that `run` takes. Its result is dropped after the clock has stopped.
pub fn seconds<R, E: Into<Error>>(run: impl FnOnce() -> Result<R, E>) -> Result<f64, Error> {
    let start = Instant::now();
    let result = run();
    let seconds = start.elapsed().as_secs_f64();
    result.map(|_| seconds).map_err(Into::into)
}

/// Whether the only option, `--quick`, was given.
pub fn quick() -> Result<bool, Error> {
    let mut quick = false;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => quick = true,
            other => return Err(format!("{other}: the only option is --quick").into()),
        }
    }
    Ok(quick)
}
