//! One row of a large vocabulary, cut among threads that this program starts itself.
//!
//! `cargo run --release --example shards`

use std::sync::{Barrier, Mutex};

use softmax::{BLOCK, Merged, Partial, Shards};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    const THREADS: usize = 3;
    let row: Vec<f32> = (0..1_000_003).map(|i| (i as f32 * 0.7).sin() * 20.0).collect();
    let mut probs = vec![0.0; row.len()];
    let blocks = Partial::count(row.len());
    // Every thread but the last has the same number of whole blocks.
    let each = blocks.div_ceil(THREADS);

    let partials = Mutex::new(vec![Partial::NOTHING; blocks]);
    let barrier = Barrier::new(THREADS);
    let shards = Shards::new();
    std::thread::scope(|scope| {
        let work = row.chunks(each * BLOCK).zip(probs.chunks_mut(each * BLOCK)).enumerate();
        let threads: Vec<_> = work
            .map(|(thread, (x, y))| {
                let (partials, barrier) = (&partials, &barrier);
                scope.spawn(move || -> Result<f32, softmax::Error> {
                    let mut mine = vec![Partial::NOTHING; Partial::count(x.len())];
                    let mut row_max = None;
                    loop {
                        shards.partials(x, row_max, &mut mine)?;
                        let start = thread * each;
                        let put = |all: &mut Vec<Partial>| {
                            all[start..start + mine.len()].copy_from_slice(&mine);
                        };
                        partials.lock().map(|mut all| put(&mut all)).expect("no thread panics");
                        barrier.wait();
                        // Every thread merges, with the same result.
                        let merged = {
                            let all = partials.lock().expect("no thread panics");
                            shards.merge::<f32>(&all)?
                        };
                        barrier.wait();
                        match merged {
                            Merged::Row(row) => {
                                shards.softmax(&row, x, y)?;
                                return shards.logsumexp(&row);
                            }
                            Merged::Again(max) => row_max = Some(max),
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            let lse = thread.join().expect("no thread panics")?;
            println!("a thread is done; the row's log-sum-exp is {lse}");
        }
        Ok::<(), softmax::Error>(())
    })?;

    let mut expected = vec![0.0; row.len()];
    softmax::softmax(&row, &mut expected)?;
    let same = probs.iter().zip(&expected).all(|(p, q)| p.to_bits() == q.to_bits());
    println!("the bits of the whole row: {}", if same { "yes" } else { "no" });
    if same { Ok(()) } else { Err("the shards differ from the row".into()) }
}
