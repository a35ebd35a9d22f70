//! Probabilities of the rows of a matrix: of all columns, and of the two best alone.
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

    // The same at temperature 2, on this thread, into existing memory.
    let mut warm = [0.0f32; 12];
    let softmax = Softmax::new().temperature(2.0).exec(Exec::new().threads(Threads::Serial));
    softmax.softmax(Matrix::new(&logits, 4)?, MatrixMut::new(&mut warm, 4)?)?;
    println!("at temperature 2: {:.4?}", &warm[..4]);

    let (mut best, mut columns) = ([0.0f32; 6], [0; 6]);
    TopK::new(2).probs(Matrix::new(&logits, 4)?, &mut best, &mut columns)?;
    for (row, (p, column)) in best.chunks(2).zip(columns.chunks(2)).enumerate() {
        println!("row {row}: columns {column:?} with {p:.4?}");
        // Equal, to the bit, to the whole row's.
        assert!(p.iter().zip(column).all(|(p, &column)| *p == probs[4 * row + column]));
    }

    // Sizes that do not fit are an error that names them, and nothing is written.
    let error = softmax::probs_rows(&logits, 5).unwrap_err();
    println!("refused: {error}");
    Ok(())
}
