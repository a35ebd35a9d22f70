//! The output logits of a language model with a large vocabulary: softmax, log-sum-exp and softmax
//! at temperature 0.7 over rows of 128,256 tokens.
//!
//!     cargo run --release --example large_vocab -- 256

use std::error::Error;
use std::time::Instant;

use softmax::{Matrix, MatrixMut, Softmax};

/// The vocabulary of Llama 3.
const VOCAB: usize = 128_256;
const TEMPERATURE: f64 = 0.7;

fn main() -> Result<(), Box<dyn Error>> {
    let rows: usize = match std::env::args().nth(1) {
        Some(arg) => arg.parse().map_err(|e| format!("the number of rows, {arg:?}: {e}"))?,
        None => 256,
    };
    if rows == 0 {
        return Err("at least one row is needed".into());
    }
    let logits = logits(rows);
    let x = Matrix::new(&logits, VOCAB)?;
    let mut probs = vec![0.0f32; logits.len()];
    let mut lse = vec![0.0f32; rows];

    println!("{rows} rows of {VOCAB} f32, kernel {}", softmax::default_kernel()?.name());
    let plain = Softmax::new();
    let warm = Softmax::new().temperature(TEMPERATURE);

    // A softmax reads and writes each element at least once; log-sum-exp only reads.
    report("softmax", logits.len(), 8, || plain.softmax(x, MatrixMut::new(&mut probs, VOCAB)?))?;
    check_sums(&probs)?;
    let top = top5(&probs[..VOCAB]);

    report("log-sum-exp", logits.len(), 4, || plain.logsumexp(x, &mut lse))?;

    let name = format!("softmax, temperature {TEMPERATURE}");
    report(&name, logits.len(), 8, || warm.softmax(x, MatrixMut::new(&mut probs, VOCAB)?))?;
    check_sums(&probs)?;

    println!("every row sums to 1 within 1e-5");
    println!("row 0: log-sum-exp {:.4}, and its most likely tokens:", lse[0]);
    println!("  token     logit  probability  at temperature {TEMPERATURE}");
    for (token, p) in top {
        println!("  {token:6} {:8.3} {p:12.6} {:12.6}", logits[token], probs[token]);
    }
    Ok(())
}

/// Plausible logits: many unlikely tokens, and in each row a few that stand out.
fn logits(rows: usize) -> Vec<f32> {
    let mut random = SplitMix64(1);
    let mut logits: Vec<f32> = (0..rows * VOCAB).map(|_| 2.5 * random.normal()).collect();
    for row in logits.chunks_exact_mut(VOCAB) {
        for above in [15.0, 14.0, 13.0, 12.0, 11.0] {
            row[random.next() as usize % VOCAB] = above + random.normal();
        }
    }
    logits
}

/// Steele, Lea and Flood's generator.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Nearly a standard normal number: the sum of four uniform ones of 16 bits each, whose
    /// variance is 4/12 before it is scaled to 1.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum();
        (sum as f32 / 65_536.0 - 2.0) * 3.0f32.sqrt()
    }
}

/// Runs `f` three times and prints the shortest time. The first run also pays for fresh memory and
/// new threads.
fn report(
    name: &str,
    elements: usize,
    bytes_per_element: usize,
    mut f: impl FnMut() -> Result<(), softmax::Error>,
) -> Result<(), softmax::Error> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let start = Instant::now();
        f()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    let g_elements = elements as f64 / best / 1e9;
    println!(
        "{name:24} {:9.3} ms  {g_elements:6.2} G elements/s  {:6.2} GB/s",
        best * 1e3,
        g_elements * bytes_per_element as f64
    );
    Ok(())
}

/// Every row of `probs` must sum to 1 within 1e-5.
fn check_sums(probs: &[f32]) -> Result<(), String> {
    for (i, row) in probs.chunks_exact(VOCAB).enumerate() {
        let sum: f64 = row.iter().map(|&p| f64::from(p)).sum();
        if sum.is_nan() || (sum - 1.0).abs() > 1e-5 {
            return Err(format!("row {i} sums to {sum}"));
        }
    }
    Ok(())
}

/// The five largest elements of a row and their indices, the largest first.
fn top5(row: &[f32]) -> Vec<(usize, f32)> {
    let mut order: Vec<_> = row.iter().copied().enumerate().collect();
    order.select_nth_unstable_by(4, |a, b| b.1.total_cmp(&a.1));
    order.truncate(5);
    order.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
    order
}
