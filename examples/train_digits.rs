//! Multinomial logistic regression on handwritten digits (see `data/README.md`), trained with the
//! fused gradient of cross-entropy.
//!
//!     cargo run --release --example train_digits

use std::error::Error;
use std::path::Path;

use softmax::{CrossEntropy, Hardmax, Matrix, MatrixMut};

const PIXELS: usize = 64;
const CLASSES: usize = 10;

/// Number of steps of gradient descent, their size, and the momentum.
const STEPS: usize = 600;
const RATE: f32 = 1.0;
const MOMENTUM: f32 = 0.9;

/// Number that scikit-learn's `LogisticRegression` (its defaults, until it converged) gets right on
/// the same split: `data/make_images.py`.
const SCIKIT_LEARN: usize = 347;

/// One image for each row, 1 as its last pixel for the bias; and the digits.
struct Set {
    images: Vec<f32>,
    labels: Vec<i64>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let pixels: Vec<u8> = load("digits_images.npy", 1797 * PIXELS, u8::from_le_bytes)?;
    let labels: Vec<i64> = load("digits_labels.npy", 1797, i64::from_le_bytes)?;
    let [train, test] = [false, true].map(|test| {
        let rows = pixels.chunks_exact(PIXELS).zip(&labels).enumerate();
        // Every fifth image is in the test set.
        let rows = rows.filter(|(i, _)| (i % 5 == 4) == test);
        let (images, labels): (Vec<_>, Vec<_>) =
            rows.map(|(_, (image, &label))| (image, label)).unzip();
        let pixels = |image: &[u8]| -> Vec<f32> {
            image.iter().map(|&p| f32::from(p) / 16.0).chain([1.0]).collect()
        };
        Set { images: images.into_iter().flat_map(pixels).collect(), labels }
    });

    let n = train.labels.len();
    // A row for each pixel, and one for the bias.
    let mut weights = vec![0.0f32; (PIXELS + 1) * CLASSES];
    let mut velocity = weights.clone();
    for step in 0..=STEPS {
        // The logits become the gradient of the mean loss with respect to them.
        let mut logits = scores(&train.images, &weights);
        let loss = CrossEntropy::new()
            .gradient_in_place(MatrixMut::new(&mut logits, CLASSES)?, &train.labels)?;
        if step % 100 == 0 {
            let (right, all) = (hits(&train, &weights)?, train.labels.len());
            println!("step {step:3}: loss {loss:.6}, {right} of {all} training images");
        }
        // The gradient with respect to the weights, and of scikit-learn's penalty |w|^2 / 2 of the
        // total loss, which spares the bias.
        let mut gradient: Vec<f32> = weights.iter().map(|w| w / n as f32).collect();
        gradient[PIXELS * CLASSES..].fill(0.0);
        for (image, g) in train.images.chunks_exact(PIXELS + 1).zip(logits.chunks_exact(CLASSES)) {
            for (pixel, row) in image.iter().zip(gradient.chunks_exact_mut(CLASSES)) {
                row.iter_mut().zip(g).for_each(|(sum, g)| *sum += pixel * g);
            }
        }
        for ((w, v), g) in weights.iter_mut().zip(&mut velocity).zip(&gradient) {
            *v = MOMENTUM * *v - RATE * g;
            *w += *v;
        }
    }

    let (right, all) = (hits(&test, &weights)?, test.labels.len());
    println!("test: {right} of {all}, {:.4}", right as f64 / all as f64);
    println!("scikit-learn: {SCIKIT_LEARN} of {all}, {:.4}", SCIKIT_LEARN as f64 / all as f64);
    if right < SCIKIT_LEARN {
        return Err("that is less than scikit-learn gets right".into());
    }
    Ok(())
}

/// Images times weights: a row of logits for each image.
fn scores(images: &[f32], weights: &[f32]) -> Vec<f32> {
    let mut logits = Vec::with_capacity(images.len() / (PIXELS + 1) * CLASSES);
    for image in images.chunks_exact(PIXELS + 1) {
        let mut row = [0.0f32; CLASSES];
        for (pixel, weights) in image.iter().zip(weights.chunks_exact(CLASSES)) {
            row.iter_mut().zip(weights).for_each(|(sum, w)| *sum += pixel * w);
        }
        logits.extend(row);
    }
    logits
}

/// Number of images of a set that are recognised.
fn hits(set: &Set, weights: &[f32]) -> Result<usize, softmax::Error> {
    let logits = scores(&set.images, weights);
    let mut digits = vec![0; set.labels.len()];
    Hardmax::new().argmax(Matrix::new(&logits, CLASSES)?, &mut digits)?;
    Ok(digits.iter().zip(&set.labels).filter(|(digit, label)| **digit as i64 == **label).count())
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
