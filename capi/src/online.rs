//! Softmax of attention scores in tiles.

use softmax::half::{bf16, f16};
use softmax::{Attention, Error, Matrix, OnlineRow, OnlineSoftmax, Weight};

use crate::attention::{options_apart, softmax_attention};
use crate::options::{Call, call, plain_call, softmax_options};
use crate::raw::{
    Descriptor, Region, SOFTMAX_BF16, SOFTMAX_F16, SOFTMAX_F32, disjoint, read, slice, slice_mut,
    softmax_matrix,
};
use crate::status::{Failure, Reason, softmax_status};

/// The place of a tile in the whole matrix of scores that `softmax_attention` describes.
/// `softmax_tile_of` makes one of the first row and key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_tile {
    /// `sizeof(softmax_tile)`.
    pub size: usize,
    /// Rows of the whole: those of all sequences, heads and queries.
    pub rows: usize,
    /// Keys of the whole.
    pub keys: usize,
    /// The row of the whole that is the tile's first.
    pub first_row: usize,
    /// The key of the whole that is the tile's first.
    pub first_key: usize,
}

// SAFETY: numbers.
unsafe impl Descriptor for softmax_tile {
    const NAME: &'static str = "softmax_tile";
}

/// The state of a row between its tiles: plain memory, which may be copied and moved, but not sent
/// to another machine or kept for another version of this library (for that there is
/// `softmax_online_to_array`). `softmax_online_new` makes that of a row that has seen no key.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_online_row {
    /// Of the library.
    pub state: [u64; 22],
}

const _: () = assert!(size_of::<softmax_online_row>() == size_of::<OnlineRow>());
const _: () = assert!(align_of::<softmax_online_row>() == align_of::<OnlineRow>());

/// Numbers that `softmax_online_to_array` writes for each row.
pub const SOFTMAX_ONLINE_NUMBERS: usize = 5;

/// Writes the state of rows that have seen no key.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_online_new(
    states: *mut softmax_online_row,
    count: usize,
) -> softmax_status {
    plain_call(|| {
        // SAFETY: as this function's.
        let states = unsafe { slice_mut("states", states.cast::<OnlineRow>(), count) }?;
        states.fill(OnlineRow::NEW);
        Ok(())
    })
}

/// What the tile of a call has for each row.
#[derive(Clone, Copy)]
struct OfRows {
    states: *mut softmax_online_row,
    factors: *mut f32,
}

impl OfRows {
    fn regions(&self, weights: Region, rows: usize) -> Result<[Region; 3], Failure> {
        let states = Region::of("states", self.states, rows)?;
        Ok([weights, states, Region::of("factors", self.factors, rows)?])
    }

    /// # Safety
    /// As [`softmax_online_tile`].
    unsafe fn slices<'a>(
        &self,
        rows: usize,
    ) -> Result<(&'a mut [OnlineRow], &'a mut [f32]), Failure> {
        // SAFETY: as this function's.
        unsafe {
            let states = slice_mut("states", self.states.cast::<OnlineRow>(), rows)?;
            Ok((states, slice_mut("factors", self.factors, rows)?))
        }
    }
}

/// The options by tiles. A function of its own, for the stack.
#[inline(never)]
fn online_of<'a>(attention: Attention<'a>, tile: &softmax_tile) -> OnlineSoftmax<'a> {
    attention.online(tile.rows, tile.keys)
}

/// # Safety
/// As [`softmax_online_tile`].
unsafe fn weigh<U: Weight>(
    call: &Call,
    tile: &softmax_tile,
    scores: &softmax_matrix,
    weights: &softmax_matrix,
    of_rows: OfRows,
    attention: &softmax_attention,
) -> Result<(), Failure> {
    let written = of_rows.regions(weights.region::<U>("weights")?, scores.rows)?;
    let read = scores.region::<f32>("scores")?;
    // SAFETY: as this function's; what is written does not overlap anything.
    unsafe {
        let attention = options_apart(call, attention, tile.keys, &written, read)?;
        let online = online_of(attention, tile);
        let (states, factors) = of_rows.slices(scores.rows)?;
        let (scores, weights) = (scores.view("scores")?, weights.view_mut::<U>("weights")?);
        let first = (tile.first_row, tile.first_key);
        call.lent(|| online.tile(first, scores, weights, states, factors))
    }
}

/// As [`weigh`], overwriting the scores with their weights.
///
/// # Safety
/// As [`softmax_online_tile`].
unsafe fn weigh_in_place(
    call: &Call,
    tile: &softmax_tile,
    scores: &softmax_matrix,
    of_rows: OfRows,
    attention: &softmax_attention,
) -> Result<(), Failure> {
    let written = of_rows.regions(scores.region::<f32>("scores")?, scores.rows)?;
    let none = Region::of("nothing", std::ptr::null::<u8>(), 0)?;
    // SAFETY: as this function's; what is written does not overlap anything.
    unsafe {
        let attention = options_apart(call, attention, tile.keys, &written, none)?;
        let online = online_of(attention, tile);
        let (states, factors) = of_rows.slices(scores.rows)?;
        let scores = scores.view_mut("scores")?;
        let first = (tile.first_row, tile.first_key);
        call.lent(|| online.tile_in_place(first, scores, states, factors))
    }
}

/// The weights of a tile of scores (f32), for attention whose scores are never stored as a whole:
/// docs/attention.md. `weights` is a matrix of f32, f16 or bf16 with the tile's shape, which is
/// `scores` itself (in place) or does not overlap it. There is a state for each row of the tile,
/// which the call changes, and a factor, which it writes: what the row has accumulated is to be
/// multiplied by it, before the weights times the values are added. It is a power of two, mostly 1,
/// and 0 if the row has seen nothing before the tile.
///
/// All tiles of a row have the same options and the same `rows` and `keys`; lists and masks of
/// `attention` are those of the whole. The calling thread does the work: `threads` and `parallel`
/// of the options have no effect. With a scale below 0 the tile is copied to scratch memory; what
/// is lent too little for that (4 bytes an element and 64 more are enough) the allocator provides.
///
/// Error: a weight of f32 times the reciprocal that `softmax_online_finish` gives is within 4 ULP
/// of the probability. Tiles in the order of keys give the same bits however they are cut.
///
/// # Safety
/// As the head of this file says.
#[allow(clippy::too_many_arguments)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_online_tile(
    tile: *const softmax_tile,
    scores: *const softmax_matrix,
    weights: *const softmax_matrix,
    states: *mut softmax_online_row,
    factors: *mut f32,
    attention: *const softmax_attention,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (tile, scores, weights) = (read(tile)?, read(scores)?, read(weights)?);
            let attention = read(attention)?;
            let of_rows = OfRows { states, factors };
            match (scores.dtype, weights.dtype) {
                (SOFTMAX_F32, SOFTMAX_F32) if scores.is(weights) => {
                    weigh_in_place(call, tile, scores, of_rows, attention)
                }
                (SOFTMAX_F32, SOFTMAX_F32) => {
                    weigh::<f32>(call, tile, scores, weights, of_rows, attention)
                }
                (SOFTMAX_F32, SOFTMAX_F16) => {
                    weigh::<f16>(call, tile, scores, weights, of_rows, attention)
                }
                (SOFTMAX_F32, SOFTMAX_BF16) => {
                    weigh::<bf16>(call, tile, scores, weights, of_rows, attention)
                }
                dtypes => Err(Reason::Dtypes { of: "scores and weights", dtypes }.into()),
            }
        })
    }
}

/// The end of `count` rows, of which `first_row` of `tile` is the first (`first_key` has no
/// meaning): the number by which what each row has accumulated is to be multiplied, one divided by
/// the sum of its weights and its sink; and the log-sum-exp of its logits with its sink, unless
/// `logsumexp` is null. The options are those of the tiles.
///
/// A row without a key and a sink has the reciprocal NaN or, with `SOFTMAX_MASKED_ZERO`, 0, and the
/// log-sum-exp -inf; a row that has nothing but a sink has the reciprocal 0. The states are not
/// changed.
///
/// Error: the reciprocal has one rounding; the log-sum-exp is within 2 ULP or 2e-7, whichever is
/// larger (logits beyond 45,000 are rounded to f32 first).
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_online_finish(
    tile: *const softmax_tile,
    states: *const softmax_online_row,
    count: usize,
    reciprocals: *mut f32,
    logsumexp: *mut f32,
    attention: *const softmax_attention,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let (tile, attention) = (read(tile)?, read(attention)?);
            let n = if logsumexp.is_null() { 0 } else { count };
            let written = [
                Region::of("reciprocals", reciprocals, count)?,
                Region::of("logsumexp", logsumexp, n)?,
            ];
            let of_states = Region::of("states", states, count)?;
            let attention = options_apart(call, attention, tile.keys, &written, of_states)?;
            let online = online_of(attention, tile);
            let states = slice("states", states.cast::<OnlineRow>(), count)?;
            let reciprocals = slice_mut("reciprocals", reciprocals, count)?;
            let logs = slice_mut("logsumexp", logsumexp, n)?;
            let logs = (!logsumexp.is_null()).then_some(logs);
            Ok(online.finish(tile.first_row, states, reciprocals, logs)?)
        })
    }
}

/// Merges states of `count` rows: `states` becomes the state of what either has seen, where
/// `others` have seen later keys of the same rows. What either has accumulated is to be multiplied
/// by its factor, a power of two; then they are added.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_online_merge(
    states: *mut softmax_online_row,
    others: *const softmax_online_row,
    count: usize,
    factors: *mut f32,
    other_factors: *mut f32,
) -> softmax_status {
    plain_call(|| {
        disjoint(
            &[
                Region::of("states", states, count)?,
                Region::of("factors", factors, count)?,
                Region::of("other_factors", other_factors, count)?,
            ],
            &[Region::of("others", others, count)?],
        )?;
        // SAFETY: as this function's; what is written does not overlap anything.
        unsafe {
            let states = slice_mut("states", states.cast::<OnlineRow>(), count)?;
            let others = slice("others", others.cast::<OnlineRow>(), count)?;
            let factors = slice_mut("factors", factors, count)?;
            let other_factors = slice_mut("other_factors", other_factors, count)?;
            Ok(OnlineSoftmax::merge(states, others, factors, other_factors)?)
        }
    })
}

/// The states of `count` rows as `SOFTMAX_ONLINE_NUMBERS` numbers for each, to be sent to other
/// machines and merged there. They have the same bits on every machine; NaN may be any.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_online_to_array(
    states: *const softmax_online_row,
    count: usize,
    numbers: *mut f64,
) -> softmax_status {
    plain_call(|| {
        let n = count.checked_mul(SOFTMAX_ONLINE_NUMBERS).ok_or(Reason::TooLarge("numbers"))?;
        let of_states = Region::of("states", states, count)?;
        disjoint(&[Region::of("numbers", numbers, n)?], &[of_states])?;
        // SAFETY: as this function's; they do not overlap.
        unsafe {
            let states = slice("states", states.cast::<OnlineRow>(), count)?;
            let (numbers, _) = slice_mut("numbers", numbers, n)?.as_chunks_mut();
            numbers.iter_mut().zip(states).for_each(|(to, state)| *to = state.to_array());
        }
        Ok(())
    })
}

/// The states of the numbers of `softmax_online_to_array`. Other numbers make states whose weights
/// are not specified.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_online_from_array(
    numbers: *const f64,
    count: usize,
    states: *mut softmax_online_row,
) -> softmax_status {
    plain_call(|| {
        let n = count.checked_mul(SOFTMAX_ONLINE_NUMBERS).ok_or(Reason::TooLarge("numbers"))?;
        let of_numbers = Region::of("numbers", numbers, n)?;
        disjoint(&[Region::of("states", states, count)?], &[of_numbers])?;
        // SAFETY: as this function's; they do not overlap.
        unsafe {
            let (numbers, _) = slice("numbers", numbers, n)?.as_chunks();
            let states = slice_mut("states", states.cast::<OnlineRow>(), count)?;
            states.iter_mut().zip(numbers).for_each(|(to, &of)| *to = OnlineRow::from_array(of));
        }
        Ok(())
    })
}

/// The region of a matrix of f32.
fn f32s(what: &'static str, matrix: &softmax_matrix) -> Result<Region, Failure> {
    match matrix.dtype {
        SOFTMAX_F32 => matrix.region::<f32>(what),
        dtype => Err(Reason::Dtype { of: "an output", dtype }.into()),
    }
}

/// Merges outputs of attention over different keys, from whatever library: `exp(logsumexps[i] -
/// logsumexp) outputs[i]`, added, with `logsumexp` the log-sum-exp of all, which is written, too.
/// `outputs` and `logsumexps` are lists of `parts` pointers: to matrices of f32 with the shape of
/// `output`, and to one number for each row.
///
/// A part whose log-sum-exp is -inf has seen no key, and its output is not read. Rows whose parts
/// all are so become NaN or, with `SOFTMAX_MASKED_ZERO`, 0. Unlike `softmax_online_merge` this
/// rounds: once, from double, and log-sum-exps have been rounded before. It allocates some 50 bytes
/// for each part.
///
/// # Safety
/// As the head of this file says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn softmax_merge_outputs(
    outputs: *const *const softmax_matrix,
    logsumexps: *const *const f32,
    parts: usize,
    output: *const softmax_matrix,
    logsumexp: *mut f32,
    options: *const softmax_options,
) -> softmax_status {
    // SAFETY: as this function's.
    unsafe {
        call(options, &|call| {
            let output = read(output)?;
            let of_output = f32s("output", output)?;
            let written = [of_output, Region::of("logsumexp", logsumexp, output.rows)?];
            let lists = [
                Region::of("outputs", outputs, parts)?,
                Region::of("logsumexps", logsumexps, parts)?,
            ];
            call.disjoint(&written, &lists)?;
            let outputs = slice("outputs", outputs, parts)?;
            let logs = slice("logsumexps", logsumexps, parts)?;
            let mut all: Vec<(Matrix<f32>, &[f32])> = Vec::new();
            all.try_reserve_exact(parts).map_err(|_| Error::memory(parts))?;
            for (&part, &logs) in outputs.iter().zip(logs) {
                let part = read(part)?;
                let of_logs = Region::of("logsumexps", logs, part.rows)?;
                call.disjoint(&written, &[f32s("outputs", part)?, of_logs])?;
                all.push((part.view("outputs")?, slice("logsumexps", logs, part.rows)?));
            }
            let to = output.view_mut("output")?;
            let logs = slice_mut("logsumexp", logsumexp, output.rows)?;
            let online = call.given.attention(1, 1).online(0, 0);
            Ok(online.merge_outputs(&all, to, logs)?)
        })
    }
}
