//! Attention in an engine with its own threads and buffers.
//!
//!     cargo run --release --example attention

use softmax::{Attention, Error, Exec, Executor, MatrixMut, Shape};

/// The engine's threads, made for each call here, for brevity.
struct Engine(usize);

impl Executor for Engine {
    fn threads(&self) -> usize {
        self.0
    }

    fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| (1..count).for_each(|i| drop(scope.spawn(move || body(i)))));
    }
}

fn main() -> Result<(), Error> {
    let (heads, queries, keys, size) = (8, 512, 512, 64);
    let shape = Shape::new(heads * queries, keys);
    let mut scores = vec![1.0f32; heads * queries * keys];

    let engine = Engine(4);
    let attention = Attention::new(heads, queries)
        .scale(1.0 / f64::from(size).sqrt())
        .causal()
        .exec(Exec::new().executor(&engine));
    let mut buffer = vec![0; attention.scratch_size::<f32, f32>(shape.in_place())?];
    softmax::with_scratch(&mut buffer, || {
        attention.softmax_in_place(MatrixMut::new(&mut scores, keys)?)
    })?;

    println!("{keys} keys, of which the first query sees one: {:?} ...", &scores[..3]);
    assert_eq!(scores[..3], [1.0, 0.0, 0.0]);
    Ok(())
}
