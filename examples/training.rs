//! Training: the loss of a batch and its gradient in one pass over the logits, which the gradient
//! overwrites.
//!
//!     cargo run --release --example training

use softmax::{CrossEntropy, Error, MatrixMut};

const CLASSES: usize = 3;

fn main() -> Result<(), Error> {
    // Four samples of two numbers, their classes (-100: not counted), and a weight for each number
    // and class.
    let samples = [[1.0f32, 0.0], [0.0, 1.0], [1.0, 1.0], [0.5, 0.5]];
    let labels = [0, 1, 2, -100];
    let mut weights = [[0.0f32; CLASSES]; 2];

    let cross_entropy = CrossEntropy::new().label_smoothing(0.05).z_loss(1e-4);
    let mut losses = Vec::new();
    for _ in 0..200 {
        let mut logits: Vec<f32> = samples
            .iter()
            .flat_map(|x| (0..CLASSES).map(|c| x[0] * weights[0][c] + x[1] * weights[1][c]))
            .collect();
        let rows = MatrixMut::new(&mut logits, CLASSES)?;
        losses.push(cross_entropy.gradient_in_place(rows, &labels)?);
        for (x, gradient) in samples.iter().zip(logits.chunks(CLASSES)) {
            for (x, weights) in x.iter().zip(&mut weights) {
                weights.iter_mut().zip(gradient).for_each(|(w, g)| *w -= x * g);
            }
        }
    }
    println!("mean loss {:.4} at first, {:.4} in the end", losses[0], losses[199]);
    assert!(losses[199] < losses[0]);
    Ok(())
}
