//! A batch of logits whose vocabulary is spread over processes: each has some columns of every row.
//! After one all-gather of the partials of all rows, every process has the probabilities of its
//! columns, with the bits that one process would get.
//!
//! `mpirun -n 4 target/release/mpi_vocab [--quick]` (run.sh has the options for one machine). Rank
//! 0 gathers the slices of all rows and compares them; a difference aborts all processes.

use std::ops::Range;

use mpi::collective::SystemOperation;
use mpi::datatype::PartitionMut;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use softmax::half::{bf16, f16};
use softmax::{BLOCK, Element, Merged, MergedRow, Partial, Shards};
use softmax_engines::{Bits, Error, check_bits, interleaved, logit, logits, quick, seconds};

/// An element whose partials are sent as words of 64 bits.
trait Wire: Bits {
    const WORDS: usize;
    fn to_words(partial: Partial, words: &mut [u64]);
    fn from_words(words: &[u64]) -> Partial;
}

impl Wire for f32 {
    const WORDS: usize = 2;
    fn to_words(partial: Partial, words: &mut [u64]) {
        words.copy_from_slice(&partial.to_pair());
    }
    fn from_words(words: &[u64]) -> Partial {
        Partial::from_pair([words[0], words[1]])
    }
}

macro_rules! wire_array {
    ($($t:ty),*) => {
        $(impl Wire for $t {
            const WORDS: usize = 4;
            fn to_words(partial: Partial, words: &mut [u64]) {
                words.copy_from_slice(&partial.to_array().map(f64::to_bits));
            }
            fn from_words(words: &[u64]) -> Partial {
                Partial::from_array([0, 1, 2, 3].map(|i| f64::from_bits(words[i])))
            }
        })*
    };
}

wire_array!(f16, bf16, f64);

/// The distribution of a row's columns: whole blocks, as evenly as possible. Some ranks have none
/// if there are more ranks than blocks.
#[derive(Clone, Copy)]
struct Split {
    cols: usize,
    ranks: usize,
}

impl Split {
    fn blocks(&self, rank: usize) -> Range<usize> {
        let all = Partial::count(self.cols);
        all * rank / self.ranks..all * (rank + 1) / self.ranks
    }

    /// Every slice that is not empty, except the last, is a multiple of BLOCK long.
    fn cols(&self, rank: usize) -> Range<usize> {
        let Range { start, end } = self.blocks(rank);
        (start * BLOCK).min(self.cols)..(end * BLOCK).min(self.cols)
    }
}

/// MPI counts by i32.
fn counts(sizes: impl Iterator<Item = usize>) -> Result<(Vec<i32>, Vec<i32>), Error> {
    let (mut counts, mut starts, mut start) = (Vec::new(), Vec::new(), 0usize);
    for size in sizes {
        counts.push(i32::try_from(size)?);
        starts.push(i32::try_from(start)?);
        start += size;
    }
    i32::try_from(start)?;
    Ok((counts, starts))
}

/// The state of a process.
struct Process<'a> {
    world: &'a SimpleCommunicator,
    rank: usize,
    split: Split,
    shards: Shards<'static>,
}

/// The cost of a batch: seconds of this process, and what was sent.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    sum: f64,
    exchange: f64,
    merge: f64,
    finish: f64,
    /// Rows that needed a second round.
    again: usize,
}

/// The result that every process has of a batch.
struct Done<T> {
    merged: Vec<MergedRow<T>>,
    lse: Vec<T>,
    cost: Cost,
}

impl Process<'_> {
    /// Overwrites this process's columns with their probabilities. `x` has all rows of the batch,
    /// one after another.
    fn softmax<T: Wire>(&self, x: &mut [T], rows: usize) -> Result<Done<T>, Error> {
        let width = self.split.cols(self.rank).len();
        let row = |i: usize| i * width..(i + 1) * width;
        let mut cost = Cost::default();
        let mut merged: Vec<Option<MergedRow<T>>> = vec![None; rows];
        // The rows to be summed, and their largest element if it is known: first all rows, without
        // it.
        let mut todo: Vec<(usize, Option<f64>)> = (0..rows).map(|i| (i, None)).collect();
        while !todo.is_empty() {
            let blocks = Partial::count(width);
            let mut mine = vec![Partial::NOTHING; todo.len() * blocks];
            cost.sum += seconds(|| {
                (0..todo.len()).try_for_each(|k| {
                    let (i, max) = todo[k];
                    let partials = &mut mine[k * blocks..(k + 1) * blocks];
                    self.shards.partials(&x[row(i)], max, partials)
                })
            })?;
            let mut all = Vec::new();
            cost.exchange += seconds(|| {
                all = self.all_gather::<T>(&mine, todo.len())?;
                Ok::<_, Error>(())
            })?;
            // All processes get the same result, so all know which rows are summed again.
            let mut again = Vec::new();
            cost.merge += seconds(|| {
                let each = Partial::count(self.split.cols);
                (0..todo.len()).try_for_each(|k| {
                    let (i, _) = todo[k];
                    match self.shards.merge(&all[k * each..(k + 1) * each])? {
                        Merged::Row(row) => merged[i] = Some(row),
                        Merged::Again(max) => again.push((i, Some(max))),
                    }
                    Ok::<_, Error>(())
                })
            })?;
            cost.again += again.len();
            todo = again;
        }
        let merged: Option<Vec<_>> = merged.into_iter().collect();
        let merged = merged.ok_or("a row that was not merged")?;
        let mut lse = Vec::with_capacity(rows);
        cost.finish = seconds(|| {
            merged.iter().enumerate().try_for_each(|(i, merged)| {
                self.shards.softmax_in_place(merged, &mut x[row(i)])?;
                lse.push(self.shards.logsumexp(merged)?);
                Ok::<_, Error>(())
            })
        })?;
        Ok(Done { merged, lse, cost })
    }

    /// Gathers the partials of all columns of `rows` rows from all processes, row by row and in the
    /// order of the row.
    fn all_gather<T: Wire>(&self, mine: &[Partial], rows: usize) -> Result<Vec<Partial>, Error> {
        let mut sent = vec![0u64; mine.len() * T::WORDS];
        for (partial, words) in mine.iter().zip(sent.chunks_mut(T::WORDS)) {
            T::to_words(*partial, words);
        }
        let of_rank = |rank| self.split.blocks(rank).len() * rows * T::WORDS;
        let (counts, starts) = counts((0..self.split.ranks).map(of_rank))?;
        let blocks = Partial::count(self.split.cols);
        let mut received = vec![0u64; rows * blocks * T::WORDS];
        let mut parts = PartitionMut::new(&mut received[..], counts, &starts[..]);
        self.world.all_gather_varcount_into(&sent[..], &mut parts);

        // Received rank by rank.
        let mut all = vec![Partial::NOTHING; rows * blocks];
        let mut words = received.chunks_exact(T::WORDS);
        for rank in 0..self.split.ranks {
            for row in 0..rows {
                let Range { start, end } = self.split.blocks(rank);
                for (partial, words) in
                    all[row * blocks + start..row * blocks + end].iter_mut().zip(&mut words)
                {
                    *partial = T::from_words(words);
                }
            }
        }
        Ok(all)
    }

    /// Gathers all slices at rank 0, as rows. (Only for the comparison: a program that shards its
    /// vocabulary does not want them in one place.)
    fn gather<T: Wire>(&self, y: &[T], rows: usize) -> Result<Vec<u64>, Error> {
        let sent: Vec<u64> = y.iter().map(|y| y.bits()).collect();
        let root = self.world.process_at_rank(0);
        if self.rank != 0 {
            root.gather_varcount_into(&sent[..]);
            return Ok(Vec::new());
        }
        let of_rank = |rank| self.split.cols(rank).len() * rows;
        let (counts, starts) = counts((0..self.split.ranks).map(of_rank))?;
        let mut received = vec![0u64; rows * self.split.cols];
        let mut parts = PartitionMut::new(&mut received[..], counts, &starts[..]);
        root.gather_varcount_into_root(&sent[..], &mut parts);
        let mut all = vec![0; received.len()];
        let mut rest = &received[..];
        for rank in 0..self.split.ranks {
            for row in 0..rows {
                let Range { start, end } = self.split.cols(rank);
                let (here, behind) = rest.split_at(end - start);
                let row = row * self.split.cols;
                all[row + start..row + end].copy_from_slice(here);
                rest = behind;
            }
        }
        Ok(all)
    }

    /// Checks that the batch has the bits that it has in one process, and how many of its rows
    /// needed a second round.
    fn check<T: Wire>(&self, x: &[T], what: &str, again: Range<usize>) -> Result<(), Error> {
        let cols = self.split.cols;
        let rows = x.len() / cols;
        let mine = self.split.cols(self.rank);
        let mut y: Vec<T> = x.chunks(cols).flat_map(|row| row[mine.clone()].to_vec()).collect();
        let Done { merged, lse, cost } = self.softmax(&mut y, rows)?;
        let got = self.gather(&y, rows)?;
        if !again.contains(&cost.again) {
            return Err(
                format!("{what}: {} rows took two rounds, not {again:?}", cost.again).into()
            );
        }

        // Compares the sums, too: another order changes their last bits, but an f32 probability
        // only about once in 2^29.
        for (i, (row, merged)) in x.chunks(cols).zip(&merged).enumerate() {
            let bits = |row: &MergedRow<T>| row.to_partial().to_array().map(f64::to_bits);
            let (got, want) = (bits(merged), bits(&merged_alone(&self.shards, row)?));
            if got != want {
                return Err(format!("{what}, row {i}: merged {got:x?}, not {want:x?}").into());
            }
        }
        let mut want_lse = vec![T::ZERO; rows];
        softmax::logsumexp_rows(x, &mut want_lse, cols)?;
        check_bits(&lse, &want_lse, &format!("rank {}, {what}, log-sum-exps", self.rank))?;
        if self.rank == 0 {
            let mut want = vec![T::ZERO; x.len()];
            softmax::softmax_rows(x, &mut want, cols)?;
            let want: Vec<u64> = want.iter().map(|y| y.bits()).collect();
            if let Some(i) = (0..want.len()).find(|&i| got.get(i) != Some(&want[i])) {
                return Err(format!("{what}: row {}, column {}", i / cols, i % cols).into());
            }
            println!(
                "{what} {rows} x {cols} {}: the bits of one process; {} rows took two rounds; {} partials of {} bytes a row",
                T::NAME,
                cost.again,
                Partial::count(cols),
                8 * T::WORDS,
            );
        }
        Ok(())
    }

    fn time<T: Wire>(&self, rows: usize, rounds: usize) -> Result<(), Error> {
        let cols = self.split.cols;
        let mine = self.split.cols(self.rank);
        let x: Vec<T> =
            (0..rows).flat_map(|row| mine.clone().map(move |col| logit(row, col))).collect();
        let mut phases = [vec![], vec![], vec![], vec![], vec![]];
        let mut y = x.clone();
        for round in 0..=rounds {
            y.copy_from_slice(&x);
            self.world.barrier();
            let mut cost = Cost::default();
            let whole = seconds(|| {
                cost = self.softmax(&mut y, rows)?.cost;
                Ok::<_, Error>(())
            })?;
            let own = [whole, cost.sum, cost.exchange, cost.merge, cost.finish];
            let mut slowest = [0.0; 5];
            self.world.all_reduce_into(&own[..], &mut slowest[..], SystemOperation::max());
            if round > 0 {
                phases.iter_mut().zip(slowest).for_each(|(phase, time)| phase.push(time));
            }
        }
        // The same batch in this process alone, while the others wait.
        let mut alone = 0.0;
        if self.rank == 0 {
            let x = logits::<T>(rows, cols);
            let mut y = x.clone();
            let one = softmax::Softmax::new()
                .exec(softmax::Exec::new().threads(softmax::Threads::Serial));
            alone = interleaved(
                rounds,
                &mut [&mut || {
                    y.copy_from_slice(&x);
                    seconds(|| {
                        one.softmax_in_place(softmax::MatrixMut::new(&mut y, cols)?)?;
                        Ok::<_, Error>(())
                    })
                }],
            )?[0];
        }
        self.world.barrier();
        if self.rank == 0 {
            let us = |times: &mut Vec<f64>| softmax_engines::median(times) * 1e6 / rows as f64;
            let [whole, sum, exchange, merge, finish] = &mut phases;
            println!(
                "{rows} x {cols} {}, us a row: {:.1} ({:.1} sums, {:.1} exchange, {:.2} merge, {:.1} finish); one process, one thread: {:.1}",
                T::NAME,
                us(whole),
                us(sum),
                us(exchange),
                us(merge),
                us(finish),
                alone * 1e6 / rows as f64,
            );
        }
        Ok(())
    }
}

/// Merges a whole row in this process alone.
fn merged_alone<T: Element>(shards: &Shards, row: &[T]) -> Result<MergedRow<T>, Error> {
    let mut partials = vec![Partial::NOTHING; Partial::count(row.len())];
    let mut row_max = None;
    loop {
        shards.partials(row, row_max, &mut partials)?;
        match shards.merge(&partials)? {
            Merged::Row(row) => return Ok(row),
            Merged::Again(max) => row_max = Some(max),
        }
    }
}

/// Rows of all kinds: plain ones, masks, NaN, infinities, and rows that need a second round.
fn special<T: Element>(cols: usize) -> Vec<T> {
    const ROWS: usize = 12;
    let mut x = logits::<T>(ROWS, cols);
    let big = |x: f64| T::from_f64(x);
    for (i, row) in x.chunks_mut(cols).enumerate() {
        let (last, half) = (cols - 1, cols / 2);
        match i {
            1 => row[last] = T::NAN,
            2 => row.fill(T::NEG_INFINITY),
            3 => row[half] = T::INFINITY,
            4 => (row[0], row[last]) = (T::INFINITY, T::NAN),
            // Masked: the first half, the second half, by a large number, all but one.
            5 => row[..half].fill(T::NEG_INFINITY),
            6 => row[half..].fill(T::NEG_INFINITY),
            7 => row[..half].fill(big(-10_000.0)),
            8 => {
                row.fill(T::NEG_INFINITY);
                row[last] = big(3.0);
            }
            // Beyond 45,000, where the row's maximum is subtracted.
            9 => row[last] = big(60_000.0),
            // The last block's largest element flushes the smallest of the first block, but not all
            // of it.
            10 => {
                row.iter_mut().for_each(|x| *x = big(x.to_f64() * 3.0));
                row[last] = big(88.0);
            }
            11 => row.fill(big(-50_000.0)),
            _ => {}
        }
    }
    x
}

fn run(world: &SimpleCommunicator) -> Result<(), Error> {
    let quick = quick()?;
    let (rank, ranks) = (world.rank() as usize, world.size() as usize);
    let process =
        |cols| Process { world, rank, split: Split { cols, ranks }, shards: Shards::new() };
    if rank == 0 {
        let [one, all] = [1, Partial::count(128_256)].map(|n| n * 8 * <f32 as Wire>::WORDS);
        println!(
            "{ranks} ranks, kernel {}: {one} bytes for each {BLOCK} columns, {all} for a row of 128,256",
            softmax::default_kernel()?.name()
        );
    }
    // One block; fewer blocks than ranks; whole blocks only; a vocabulary.
    for cols in [100, BLOCK, 2 * BLOCK + 1, 8 * BLOCK, 128_256] {
        // Two rows are huge; others are flushed in part if they have more than one block.
        let again = if cols > BLOCK { 3..5 } else { 2..3 };
        process(cols).check(&special::<f32>(cols), "special rows", again.clone())?;
        process(cols).check(&special::<bf16>(cols), "special rows", again)?;
    }
    process(32_000).check(&special::<f16>(32_000), "special rows", 3..5)?;
    process(32_000).check(&special::<f64>(32_000), "special rows", 2..5)?;
    process(128_256).check(&logits::<f32>(16, 128_256), "logits", 0..1)?;

    let rounds = if quick { 5 } else { 101 };
    for rows in if quick { &[1, 16][..] } else { &[1, 4, 16, 64] } {
        process(128_256).time::<f32>(*rows, rounds)?;
    }
    process(128_256).time::<bf16>(16, rounds)
}

fn main() {
    let Some(universe) = mpi::initialize() else {
        eprintln!("MPI could not be initialised");
        std::process::exit(1);
    };
    let world = universe.world();
    if let Err(e) = run(&world) {
        // The other processes may be waiting for this one.
        eprintln!("rank {}: {e}", world.rank());
        world.abort(1);
    }
}
