//! Real logits: a classifier's scores for 1,797 handwritten digits (see `data/README.md`), turned
//! into probabilities, and compared with a reference of 40 digits.
//!
//!     cargo run --release --example digits

use std::error::Error;
use std::path::Path;

const CLASSES: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let logits: Vec<f32> = load("digits_logits.npy", 1797 * CLASSES, f32::from_le_bytes)?;
    let reference: Vec<f64> = load("digits_probs.npy", 1797 * CLASSES, f64::from_le_bytes)?;
    let labels: Vec<i64> = load("digits_labels.npy", 1797, i64::from_le_bytes)?;

    let mut probs = vec![0.0f32; logits.len()];
    softmax::softmax_rows(&logits, &mut probs, CLASSES)?;

    println!("image  digit  probability  label");
    let mut hits = 0;
    for (i, (row, &label)) in probs.chunks_exact(CLASSES).zip(&labels).enumerate() {
        let (digit, probability) = most_likely(row);
        let hit = digit as i64 == label;
        hits += usize::from(hit);
        if i < 10 {
            let mark = if hit { "" } else { "  wrong" };
            println!("{i:5}  {digit:5}  {probability:11.7}  {label:5}{mark}");
        }
    }
    println!("accuracy: {hits} of {}, {:.4}", labels.len(), hits as f64 / labels.len() as f64);

    let worst = probs.iter().zip(&reference).map(|(&p, &r)| ulps(p, r)).fold(0.0, f64::max);
    println!("kernel: {}", softmax::default_kernel()?.name());
    println!("largest difference to the reference: {worst:.3} ULP");
    if worst > 3.0 {
        return Err("that is more than the 3 ULP that the library promises".into());
    }
    Ok(())
}

/// The `len` elements of a file in `data/`, whose header has 128 bytes.
fn load<const N: usize, T>(
    name: &str,
    len: usize,
    element: fn([u8; N]) -> T,
) -> Result<Vec<T>, Box<dyn Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let data = bytes.get(128..).unwrap_or_default();
    if data.len() != len * N {
        return Err(format!("{name} has {} bytes of data, not {}", data.len(), len * N).into());
    }
    Ok(data.as_chunks().0.iter().map(|&bytes| element(bytes)).collect())
}

/// The index of the largest element, and that element.
fn most_likely(row: &[f32]) -> (usize, f32) {
    row.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1)).expect("a row has elements")
}

/// The error of `p`, in units of the distance between the floats around the truth.
fn ulps(p: f32, truth: f64) -> f64 {
    // Without its mantissa a number is the power of two at or below it.
    let power = f64::from_bits(truth.to_bits() & f64::INFINITY.to_bits());
    (f64::from(p) - truth).abs() / (power * f64::from(f32::EPSILON))
}
