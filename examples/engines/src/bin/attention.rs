//! Attention that never stores its scores, of products by the crate `gemm` and softmax by tiles
//! (`softmax::OnlineSoftmax`): grouped queries, causal, with a cache of keys and values. Checked,
//! then timed beside candle's `flash_attn` for CPUs and beside stored scores, which are the same
//! products and `softmax::Attention`.
//!
//! `cargo run --release --bin attention -- [--quick]`; `RAYON_NUM_THREADS=1` for one thread.
// The products take pointers; `product` checks what they point to.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::time::Instant;

use candle_core::{Device, Tensor, WithDType};
use candle_nn::attention::{AttnMask, flash_attn};
use rayon::prelude::*;
use softmax::half::bf16;
use softmax::half::slice::HalfFloatSliceExt;
use softmax::{Attention, Exec, MatrixMut, OnlineRow, OnlineSoftmax, Threads};
use softmax_engines::{Error, interleaved, logit, quick, seconds};

/// Queries of a head in a tile, of all heads that share keys.
const QUERIES: usize = 32;

/// Keys of a tile: keys and values of f32 and their scores fit in a core's cache of 2 MiB.
const KEYS: usize = 512;

/// Keys of a task that decodes: a block of the library, so that merged states have the bits of one.
const SPLIT: usize = softmax::BLOCK;

/// Shapes: queries and keys are (tokens, heads, size), as a cache lies; outputs (heads, queries,
/// size).
#[derive(Clone, Copy)]
struct Dims {
    queries: usize,
    keys: usize,
    heads: usize,
    kv_heads: usize,
    size: usize,
}

impl Dims {
    /// Heads that share keys and values.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn scale(&self) -> f64 {
        1.0 / (self.size as f64).sqrt()
    }

    /// The softmax of one thread; others have other rows.
    fn softmax(&self) -> Attention<'static> {
        let exec = Exec::new().threads(Threads::Serial);
        Attention::new(self.heads, self.queries).scale(self.scale()).causal().exec(exec)
    }
}

/// An element type of queries, keys and values.
trait Number: softmax::Element + WithDType {
    /// Rows of `stride` as f32, in `room` if they are not.
    fn widen<'a>(rows: Rows<'a, Self>, room: &'a mut Vec<f32>) -> Rows<'a, f32>;
    /// candle's attention.
    fn candle(q: &Tensor, k: &Tensor, v: &Tensor, dims: Dims) -> candle_core::Result<Tensor>;
}

/// Some rows of a matrix.
struct Rows<'a, T> {
    x: &'a [T],
    rows: usize,
    cols: usize,
    stride: usize,
}

fn mask(dims: Dims) -> AttnMask {
    AttnMask::causal_with_offset(dims.keys - dims.queries)
}

impl Number for f32 {
    fn widen<'a>(rows: Rows<'a, f32>, _: &'a mut Vec<f32>) -> Rows<'a, f32> {
        rows
    }

    fn candle(q: &Tensor, k: &Tensor, v: &Tensor, dims: Dims) -> candle_core::Result<Tensor> {
        flash_attn::<f32>(q, k, v, dims.scale() as f32, mask(dims), None, None)
    }
}

impl Number for bf16 {
    fn widen<'a>(from: Rows<'a, bf16>, room: &'a mut Vec<f32>) -> Rows<'a, f32> {
        let Rows { x, rows, cols, stride } = from;
        room.resize(rows * cols, 0.0);
        for (row, to) in room.chunks_mut(cols).enumerate() {
            x[row * stride..][..cols].convert_to_f32_slice(to);
        }
        Rows { x: room, rows, cols, stride: cols }
    }

    fn candle(q: &Tensor, k: &Tensor, v: &Tensor, dims: Dims) -> candle_core::Result<Tensor> {
        flash_attn::<bf16>(q, k, v, dims.scale() as f32, mask(dims), None, None)
    }
}

/// `y = a b`, or `y += a b`; or of the transpose of `b`.
fn product(y: &mut [f32], add: bool, a: Rows<f32>, b: &Rows<f32>, transposed: bool) {
    let (m, k) = (a.rows, a.cols);
    let n = if transposed { b.rows } else { b.cols };
    let inner = if transposed { b.cols } else { b.rows };
    let holds = |x: &[f32], rows: usize, cols: usize, stride: usize| {
        rows == 0 || (stride >= cols && x.len() >= (rows - 1) * stride + cols)
    };
    assert!(inner == k && y.len() == m * n, "matrices that fit");
    assert!(holds(a.x, a.rows, a.cols, a.stride) && holds(b.x, b.rows, b.cols, b.stride));
    let (b_cs, b_rs) = if transposed { (b.stride, 1) } else { (1, b.stride) };
    // SAFETY: the matrices lie in their slices, as has been checked; y is another one.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.x.as_ptr(),
            1,
            a.stride as isize,
            b.x.as_ptr(),
            b_cs as isize,
            b_rs as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// What a thread keeps: the same size for any number of tokens.
#[derive(Default)]
struct Scratch {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    scores: Vec<f32>,
    output: Vec<f32>,
    states: Vec<OnlineRow>,
    factors: Vec<f32>,
    /// Seconds of softmax.
    softmax: f64,
}

impl Scratch {
    fn bytes(&self) -> usize {
        let f32s = [&self.q, &self.k, &self.v, &self.scores, &self.output, &self.factors];
        f32s.iter().map(|x| 4 * x.capacity()).sum::<usize>()
            + self.states.capacity() * size_of::<OnlineRow>()
    }
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Runs `f` with the scratch of this thread.
fn with_scratch<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    SCRATCH.with_borrow_mut(f)
}

/// Queries, keys and values.
#[derive(Clone, Copy)]
struct Input<'a, T> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    dims: Dims,
}

impl<'a, T: Number> Input<'a, T> {
    /// Keys or values of a head.
    fn cache(&self, x: &'a [T], kv_head: usize, from: usize, to: usize) -> Rows<'a, T> {
        let Dims { kv_heads, size, .. } = self.dims;
        let stride = kv_heads * size;
        Rows { x: &x[from * stride + kv_head * size..], rows: to - from, cols: size, stride }
    }

    /// Copies the queries `from..to` of the heads that share keys, one head after another.
    fn queries(&self, kv_head: usize, from: usize, to: usize, q: &mut Vec<f32>) {
        let Dims { heads, size, .. } = self.dims;
        let group = self.dims.group();
        q.clear();
        for head in kv_head * group..(kv_head + 1) * group {
            for query in from..to {
                let row = &self.q[(query * heads + head) * size..][..size];
                q.extend(row.iter().map(|&x| softmax::Element::to_f64(x) as f32));
            }
        }
    }

    /// Attention of these queries to these keys, by tiles, into the scratch's states and output.
    fn attend(
        &self,
        online: &OnlineSoftmax,
        kv_head: usize,
        (from, to): (usize, usize),
        (first_key, end): (usize, usize),
        scratch: &mut Scratch,
    ) -> Result<(), softmax::Error> {
        let Dims { queries, size, .. } = self.dims;
        let (group, n) = (self.dims.group(), to - from);
        let rows = group * n;
        self.queries(kv_head, from, to, &mut scratch.q);
        scratch.states.clear();
        scratch.states.resize(rows, OnlineRow::NEW);
        scratch.factors.resize(rows, 0.0);
        scratch.output.clear();
        scratch.output.resize(rows * size, 0.0);
        for key in (first_key..end).step_by(KEYS) {
            let keys = KEYS.min(end - key);
            scratch.scores.resize(rows * keys, 0.0);
            let q = Rows { x: &scratch.q, rows, cols: size, stride: size };
            let k = T::widen(self.cache(self.k, kv_head, key, key + keys), &mut scratch.k);
            product(&mut scratch.scores, false, q, &k, true);
            let start = Instant::now();
            // The rows of a head lie together in the whole; with one query those of all heads.
            let (parts, n) = if queries == 1 { (1, rows) } else { (group, n) };
            for part in 0..parts {
                let at = part * n;
                let scores = &mut scratch.scores[at * keys..(at + n) * keys];
                online.tile_in_place(
                    ((kv_head * group + part) * queries + from, key),
                    MatrixMut::new(scores, keys)?,
                    &mut scratch.states[at..at + n],
                    &mut scratch.factors[at..at + n],
                )?;
            }
            scratch.softmax += start.elapsed().as_secs_f64();
            for (row, &factor) in scratch.output.chunks_mut(size).zip(&scratch.factors) {
                if factor != 1.0 {
                    row.iter_mut().for_each(|x| *x *= factor);
                }
            }
            let weights = Rows { x: &scratch.scores, rows, cols: keys, stride: keys };
            let v = T::widen(self.cache(self.v, kv_head, key, key + keys), &mut scratch.v);
            product(&mut scratch.output, true, weights, &v, false);
        }
        Ok(())
    }

    /// Attention without stored scores. Returns the output and the bytes of all threads' scratch.
    fn fused(&self, out: &mut [f32]) -> Result<(), softmax::Error> {
        let dims @ Dims { queries, keys, heads, kv_heads, size } = self.dims;
        let group = dims.group();
        let online = dims.softmax().online(heads * queries, keys);
        if queries == 1 {
            let splits = keys.div_ceil(SPLIT);
            let parts: Vec<_> = (0..kv_heads * splits)
                .into_par_iter()
                .map(|task| {
                    let (kv_head, from) = (task / splits, task % splits * SPLIT);
                    with_scratch(|scratch| {
                        let to = keys.min(from + SPLIT);
                        self.attend(&online, kv_head, (0, 1), (from, to), scratch)?;
                        Ok((scratch.states.clone(), scratch.output.clone()))
                    })
                })
                .collect::<Result<_, softmax::Error>>()?;
            let (mut factors, mut others) = (vec![0.0; group], vec![0.0; group]);
            let mut reciprocals = vec![0.0; group];
            for (kv_head, (parts, out)) in
                parts.chunks(splits).zip(out.chunks_mut(group * size)).enumerate()
            {
                let mut states = parts[0].0.clone();
                out.copy_from_slice(&parts[0].1);
                for (state, output) in &parts[1..] {
                    OnlineSoftmax::merge(&mut states, state, &mut factors, &mut others)?;
                    for row in 0..group {
                        let (f, g) = (factors[row], others[row]);
                        let part = &output[row * size..][..size];
                        for (y, x) in out[row * size..][..size].iter_mut().zip(part) {
                            *y = *y * f + *x * g;
                        }
                    }
                }
                online.finish(kv_head * group, &states, &mut reciprocals, None)?;
                for (row, r) in out.chunks_mut(size).zip(&reciprocals) {
                    row.iter_mut().for_each(|x| *x *= r);
                }
            }
            return Ok(());
        }
        let past = keys - queries;
        let mut of_heads: Vec<_> =
            out.chunks_mut(queries * size).map(|head| head.chunks_mut(QUERIES * size)).collect();
        let mut tasks = Vec::new();
        for from in (0..queries).step_by(QUERIES) {
            for (kv_head, heads) in of_heads.chunks_mut(group).enumerate() {
                let parts: Vec<_> = heads.iter_mut().filter_map(Iterator::next).collect();
                tasks.push((kv_head, from, parts));
            }
        }
        // The last queries see most keys; they come first.
        tasks.reverse();
        tasks.into_par_iter().with_max_len(1).try_for_each(|(kv_head, from, mut parts)| {
            with_scratch(|scratch| {
                let to = queries.min(from + QUERIES);
                self.attend(&online, kv_head, (from, to), (0, past + to), scratch)?;
                let n = to - from;
                let mut reciprocals = [0.0; QUERIES];
                for (i, part) in parts.iter_mut().enumerate() {
                    let (rows, first) = (i * n..(i + 1) * n, kv_head * group + i);
                    let states = &scratch.states[rows.clone()];
                    let reciprocals = &mut reciprocals[..n];
                    online.finish(first * queries + from, states, reciprocals, None)?;
                    let output = &scratch.output[rows.start * size..rows.end * size];
                    for (r, (y, x)) in
                        reciprocals.iter().zip(part.chunks_mut(size).zip(output.chunks(size)))
                    {
                        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * r);
                    }
                }
                Ok(())
            })
        })
    }

    /// Attention with stored scores: all of a head at a time.
    fn stored(&self, out: &mut [f32]) -> Result<(), softmax::Error> {
        let dims @ Dims { queries, keys, kv_heads: _, size, .. } = self.dims;
        let group = dims.group();
        let attention = Attention::new(1, queries)
            .scale(dims.scale())
            .causal()
            .exec(Exec::new().threads(Threads::Serial));
        let heads: Vec<_> = out.chunks_mut(queries * size).enumerate().collect();
        heads.into_par_iter().with_max_len(1).try_for_each(|(head, out)| {
            with_scratch(|scratch| {
                scratch.q.clear();
                for query in 0..queries {
                    let row = &self.q[(query * dims.heads + head) * size..][..size];
                    scratch.q.extend(row.iter().map(|&x| softmax::Element::to_f64(x) as f32));
                }
                scratch.scores.resize(queries * keys, 0.0);
                let q = Rows { x: &scratch.q, rows: queries, cols: size, stride: size };
                let k = T::widen(self.cache(self.k, head / group, 0, keys), &mut scratch.k);
                product(&mut scratch.scores, false, q, &k, true);
                let start = Instant::now();
                attention.softmax_in_place(MatrixMut::new(&mut scratch.scores, keys)?)?;
                scratch.softmax += start.elapsed().as_secs_f64();
                let p = Rows { x: &scratch.scores, rows: queries, cols: keys, stride: keys };
                let v = T::widen(self.cache(self.v, head / group, 0, keys), &mut scratch.v);
                product(out, false, p, &v, false);
                Ok(())
            })
        })
    }

    /// One row of the output in f64.
    fn exact(&self, head: usize, query: usize) -> Result<Vec<f64>, Error> {
        let Dims { queries, keys, heads, kv_heads, size } = self.dims;
        let wide =
            |x: &[T]| -> Vec<f64> { x.iter().map(|&x| softmax::Element::to_f64(x)).collect() };
        let (q, kv_head) =
            (wide(&self.q[(query * heads + head) * size..][..size]), head / self.dims.group());
        let seen = keys - queries + query + 1;
        let at =
            |key: usize| (key * kv_heads + kv_head) * size..(key * kv_heads + kv_head + 1) * size;
        let score = |key: usize| -> f64 {
            q.iter().zip(wide(&self.k[at(key)])).map(|(q, k)| q * k).sum::<f64>()
                * self.dims.scale()
        };
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let mut probs = vec![0.0; seen];
        softmax::softmax(&scores, &mut probs)?;
        let mut out = vec![0.0; size];
        for (key, p) in probs.iter().enumerate() {
            out.iter_mut().zip(wide(&self.v[at(key)])).for_each(|(y, v)| *y += p * v);
        }
        Ok(out)
    }

    /// The largest error of an output in some rows, relative to the largest value.
    fn error(&self, out: &[f32]) -> Result<f64, Error> {
        let Dims { queries, heads, size, .. } = self.dims;
        let (mut worst, mut largest) = (0.0f64, 0.0f64);
        for head in 0..heads {
            for query in [0, queries / 3, queries / 2, queries - 1] {
                let row = &out[(head * queries + query) * size..][..size];
                for (&got, want) in row.iter().zip(self.exact(head, query)?) {
                    let error = (f64::from(got) - want).abs();
                    worst = if error.is_nan() { f64::INFINITY } else { worst.max(error) };
                    largest = largest.max(want.abs());
                }
            }
        }
        Ok(worst / largest)
    }
}

/// The seconds of softmax on all threads since the last call, and the bytes of their scratch.
fn collect(reset: bool) -> (f64, usize) {
    let of = rayon::broadcast(|_| {
        with_scratch(|scratch| {
            let of = (scratch.softmax, scratch.bytes());
            if reset {
                *scratch = Scratch::default();
            }
            scratch.softmax = 0.0;
            of
        })
    });
    let threads = of.len() as f64;
    (of.iter().map(|of| of.0).sum::<f64>() / threads, of.iter().map(|of| of.1).sum())
}

fn run<T: Number>(name: &str, dims: Dims, rounds: usize) -> Result<(), Error> {
    let Dims { queries, keys, heads, kv_heads, size } = dims;
    let numbers = |seed: usize, n: usize| -> Vec<T> {
        (0..n).map(|i| <T as softmax::Element>::from_f64(logit::<f64>(seed, i) / 4.0)).collect()
    };
    let (q, k, v) = (
        numbers(1, queries * heads * size),
        numbers(2, keys * kv_heads * size),
        numbers(3, keys * kv_heads * size),
    );
    let tensor = |x: &[T], tokens: usize, heads: usize| {
        Tensor::from_slice(x, (1, tokens, heads, size), &Device::Cpu)
    };
    let tensors =
        [tensor(&q, queries, heads)?, tensor(&k, keys, kv_heads)?, tensor(&v, keys, kv_heads)?];
    let input = Input { q: &q, k: &k, v: &v, dims };
    let [mut fused, mut stored] = [0, 1].map(|_| vec![f32::NAN; heads * queries * size]);

    collect(true);
    input.fused(&mut fused)?;
    let (_, bytes) = collect(true);
    input.stored(&mut stored)?;
    let (_, stored_bytes) = collect(true);
    let candle = T::candle(&tensors[0], &tensors[1], &tensors[2], dims)?;
    let candle: Vec<f32> = candle.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1()?;
    let errors = [input.error(&fused)?, input.error(&stored)?, input.error(&candle)?];
    // candle's output is of the type of the input.
    let bound = if name == "f32" { 1e-4 } else { 2e-2 };
    for (error, bound, what) in
        [(errors[0], 1e-5, "fused"), (errors[1], 1e-5, "stored"), (errors[2], bound, "candle")]
    {
        if error > bound {
            return Err(format!("{what}: an error of {error:e}, more than {bound:e}").into());
        }
    }

    let (mut of_fused, mut of_stored) = ((0.0, 0.0), (0.0, 0.0));
    let times = interleaved(
        rounds,
        &mut [
            &mut || {
                collect(false);
                let time = seconds(|| input.fused(&mut fused))?;
                of_fused = (of_fused.0 + collect(false).0, of_fused.1 + time);
                Ok(time)
            },
            &mut || {
                collect(false);
                let time = seconds(|| input.stored(&mut stored))?;
                of_stored = (of_stored.0 + collect(false).0, of_stored.1 + time);
                Ok(time)
            },
            &mut || seconds(|| T::candle(&tensors[0], &tensors[1], &tensors[2], dims)),
        ],
    )?;
    println!(
        "{name} {queries} queries, {keys} keys: {:.2} ms, candle {:.2} ms ({:.2} x), stored scores {:.2} ms ({:.2} x); softmax {:.0} % and {:.0} %; scratch {} KiB and {} KiB; errors {:.1e}, candle {:.1e}, stored {:.1e}",
        times[0] * 1e3,
        times[2] * 1e3,
        times[2] / times[0],
        times[1] * 1e3,
        times[1] / times[0],
        100.0 * of_fused.0 / of_fused.1,
        100.0 * of_stored.0 / of_stored.1,
        bytes >> 10,
        stored_bytes >> 10,
        errors[0],
        errors[2],
        errors[1],
    );
    Ok(())
}

fn main() -> Result<(), Error> {
    let quick = quick()?;
    let (heads, kv_heads, size) = (8, 2, 128);
    println!(
        "{heads} heads, {kv_heads} of keys and values, of {size}; {} threads",
        rayon::current_num_threads()
    );
    let shapes: &[(usize, usize, usize)] = if quick {
        &[(70, 700, 1), (1, 5000, 1)]
    } else {
        &[(1, 4096, 101), (1, 32768, 25), (512, 512, 9), (4096, 4096, 3)]
    };
    for &(queries, keys, rounds) in shapes {
        let dims = Dims { queries, keys, heads, kv_heads, size };
        run::<f32>("f32", dims, rounds)?;
        run::<bf16>("bf16", dims, rounds)?;
    }
    Ok(())
}
