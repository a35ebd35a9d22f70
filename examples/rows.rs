//! Probabilities of the rows of a matrix: of all, and of the two best columns alone.
//!
//!     cargo run --release --example rows

use softmax::{Error, Exec, Matrix, MatrixMut, Softmax, Threads, TopK};

fn main() -> Result<(), Error> {
    // Three rows of four logits.
    let logits = [1.0f32, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 9.0, 1.0, 8.5, -3.0];
    let probs = softmax::probs_rows(&logits, 4)?;
    for row in probs.chunks(4) {
        println!("{row:.4?}");
    }

    // The same at temperature 2, by this thread alone, in memory that is already there.
    let mut warm = [0.0f32; 12];
    let softmax = Softmax::new().temperature(2.0).exec(Exec::new().threads(Threads::Serial));
    softmax.softmax(Matrix::new(&logits, 4)?, MatrixMut::new(&mut warm, 4)?)?;
    println!("at temperature 2: {:.4?}", &warm[..4]);

    let (mut best, mut columns) = ([0.0f32; 6], [0; 6]);
    TopK::new(2).probs(Matrix::new(&logits, 4)?, &mut best, &mut columns)?;
    for (row, (p, column)) in best.chunks(2).zip(columns.chunks(2)).enumerate() {
        println!("row {row}: columns {column:?} with {p:.4?}");
        // To the bit what the whole row has there.
        assert!(p.iter().zip(column).all(|(p, &column)| *p == probs[4 * row + column]));
    }

    // What does not fit is an error that says so, and nothing is written.
    let error = softmax::probs_rows(&logits, 5).unwrap_err();
    println!("refused: {error}");
    Ok(())
}
