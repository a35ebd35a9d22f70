//! A call of any function of the ABI, with everything that it may write and that must hold
//! afterwards.

use std::ffi::{CStr, c_char, c_void};

use softmax_capi::*;

use crate::input::{Arg, Input, Layout, TOO_MANY, number, size_of_dtype};
use crate::memory::{Memory, Written};

/// Ok, or what is wrong with a result.
pub type Checked = Result<(), String>;

pub type Call = Box<dyn Fn(*const softmax_options) -> softmax_status>;

/// A call to make.
pub struct Planned {
    pub name: &'static str,
    pub call: Call,
    /// Bytes of scratch memory that it needs, if any.
    pub needed: Box<dyn Fn(*const softmax_options) -> Option<usize>>,
    /// Everything that it reads, except inputs that become outputs in place.
    pub read: Vec<Written>,
    /// Everything that it writes if it succeeds.
    pub written: Vec<Written>,
    /// What it writes if the partials have to be computed again.
    pub again: Option<Written>,
    /// Whether nothing may be written when it fails.
    pub whole: bool,
    /// Whether it has options, and so a message.
    pub has_options: bool,
    /// Whether the reference gives the same bits.
    pub bits: bool,
    /// Whether it refuses scratch memory that overlaps what it writes.
    pub guards_scratch: bool,
    /// The check of results after success; rows of nothing but -inf may be 0.
    pub check: Box<dyn Fn(bool) -> Checked>,
}

impl Planned {
    fn new(
        name: &'static str,
        call: impl Fn(*const softmax_options) -> softmax_status + 'static,
    ) -> Self {
        Self {
            name,
            call: Box::new(call),
            needed: Box::new(|_| None),
            read: Vec::new(),
            written: Vec::new(),
            again: None,
            whole: true,
            has_options: true,
            bits: true,
            guards_scratch: true,
            check: Box::new(|_| Ok(())),
        }
    }

    fn reads(mut self, read: impl IntoIterator<Item = Written>) -> Self {
        self.read.extend(read);
        self
    }

    fn writes(mut self, written: impl IntoIterator<Item = Written>) -> Self {
        self.written.extend(written);
        self
    }

    fn needs(
        mut self,
        of: impl Fn(*mut usize, *const softmax_options) -> softmax_status + 'static,
    ) -> Self {
        self.needed = Box::new(move |options| {
            let mut bytes = 0;
            (of(&raw mut bytes, options) == softmax_status::Ok).then_some(bytes)
        });
        self
    }

    fn checks(mut self, check: impl Fn(bool) -> Checked + 'static) -> Self {
        self.check = Box::new(check);
        self
    }

    /// A function without options.
    fn plain(self) -> Self {
        Self { has_options: false, ..self.of_its_own() }
    }

    /// A function whose result depends on the kernel, threads or caches.
    fn of_its_own(self) -> Self {
        Self { bits: false, guards_scratch: false, ..self }
    }
}

type Map = unsafe extern "C" fn(
    *const softmax_matrix,
    *const softmax_matrix,
    *const softmax_options,
) -> softmax_status;

/// The first byte of the input chooses the function.
pub fn plan(input: &mut Input) -> Planned {
    match input.byte() % 72 {
        0 => map(input, "softmax_softmax", softmax_softmax, SOFTMAX_OP_SOFTMAX),
        1 => map(input, "softmax_log_softmax", softmax_log_softmax, SOFTMAX_OP_LOG_SOFTMAX),
        2 => map(input, "softmax_sigmoid", softmax_sigmoid, SOFTMAX_OP_SIGMOID),
        3 => map(input, "softmax_log_sigmoid", softmax_log_sigmoid, SOFTMAX_OP_LOG_SIGMOID),
        4 => hardmax(input),
        5 => logsumexp(input),
        6 => argmax(input),
        7 => log_probs(input),
        8 => top_k(input),
        9 => perplexity(input),
        10 => plan_of(input),
        11 => scratch_size(input),
        12 => along_axis(input, false),
        13 => along_axis(input, true),
        14 => axis_scratch_size(input),
        15 => partial_count(input),
        16 => partials(input),
        17 => merge(input),
        18 => shard(input, false),
        19 => shard(input, true),
        20 => shard_logsumexp(input),
        21 => attention(input),
        22 => attention_scratch_size(input),
        23 => cross_entropy(input, true),
        24 => cross_entropy(input, false),
        25 => divisor(input),
        26 => reduce(input),
        27 => cross_entropy_scratch_size(input),
        28 => backward(input, "softmax_softmax_backward", softmax_softmax_backward),
        29 => backward(input, "softmax_log_softmax_backward", softmax_log_softmax_backward),
        30 => sample(input),
        31 => sample_scratch_size(input),
        32 => kernel(input),
        33 => kernel_in_use(input),
        34 => strings(input),
        35 => kept(input, false),
        36 => kept(input, true),
        37 => filtered(input, false),
        38 => filtered(input, true),
        39 => logsumexp_axis(input),
        40 => hardmax_axis(input),
        41 => argmax_axis(input),
        42 => top_k_axis(input),
        43 => top_k_scratch_size(input),
        44 => log_probs_axis(input),
        45 => cross_entropy_axis(input, true),
        46 => cross_entropy_axis(input, false),
        47 => cross_entropy_axis_scratch_size(input),
        48 => masked(input, "softmax_softmax_masked", softmax_softmax_masked),
        49 => masked(input, "softmax_log_softmax_masked", softmax_log_softmax_masked),
        50 => logsumexp_of(input),
        51 => route(input),
        52 => route_scratch_size(input),
        53 => entropy(input),
        54 => entropy_axis(input),
        55 => entropy_backward(input),
        56 => map_per_row(input, "softmax_softmax_per_row", softmax_softmax_per_row),
        57 => map_per_row(input, "softmax_log_softmax_per_row", softmax_log_softmax_per_row),
        58 => to_one_per_row(input, "softmax_logsumexp_per_row", softmax_logsumexp_per_row),
        59 => to_one_per_row(input, "softmax_entropy_per_row", softmax_entropy_per_row),
        60 => verify(input),
        61 => verify_scratch_size(input),
        62 => online_new(input),
        63 => online_tile(input),
        64 => online_finish(input),
        65 => online_merge(input),
        66 => online_array(input, true),
        67 => online_array(input, false),
        68 => merge_outputs(input),
        69 => kl_divergence(input),
        70 => kl_divergence_backward(input),
        _ => shards(input),
    }
}

/// Rows of a matrix as numbers.
fn rows_of(arg: &Arg) -> impl Iterator<Item = Vec<f64>> + use<> {
    let (rows, matrix) = (arg.rows, arg.matrix);
    let cols = if rows.rows == 0 { 0 } else { matrix.cols };
    (0..rows.rows).map(move |row| {
        let start = rows.start.wrapping_add(row * rows.stride);
        let element = |i| start.wrapping_add(i * size_of_dtype(matrix.dtype)).cast_const();
        // SAFETY: the call said that these rows are there.
        (0..cols).map(|i| unsafe { number(element(i), matrix.dtype) }).collect()
    })
}

/// Checks that rows are NaN, or sum to 1 within rounding; rows of nothing but -inf sum to 0 if
/// `zero`. With a sink they may sum to less.
fn are_probabilities(y: &Arg, zero: bool, sink: bool) -> Checked {
    let (relative, absolute) = match y.matrix.dtype {
        SOFTMAX_F64 => (1e-12, 0.0),
        SOFTMAX_F16 => (1e-3, 6e-8),
        SOFTMAX_BF16 => (8e-3, 0.0),
        _ => (1e-6, 0.0),
    };
    for (i, row) in rows_of(y).enumerate() {
        if row.iter().all(|p| p.is_nan()) || (zero && row.iter().all(|&p| p == 0.0)) {
            continue;
        }
        let in_range = row.iter().all(|p| (0.0..=1.0).contains(p));
        let (sum, error) = (row.iter().sum::<f64>(), relative + absolute * row.len() as f64);
        let sums = (sum - 1.0).abs() <= error || (sink && sum <= 1.0 + error);
        if !in_range || !sums {
            return Err(format!("row {i} sums to {sum}: {:?}", &row[..row.len().min(32)]));
        }
    }
    Ok(())
}

/// Checks that elements are NaN, or right.
fn all(y: &Arg, right: impl Fn(f64) -> bool) -> Checked {
    for (i, row) in rows_of(y).enumerate() {
        if let Some(p) = row.into_iter().find(|&p| !p.is_nan() && !right(p)) {
            return Err(format!("row {i} has {p}"));
        }
    }
    Ok(())
}

/// Checks that the numbers that were written are right.
fn all_indices(p: *const usize, n: usize, right: impl Fn(usize) -> bool) -> Checked {
    // SAFETY: the call has written them.
    let wrong = (0..n).map(|i| unsafe { p.add(i).read() }).find(|&index| !right(index));
    wrong.map_or(Ok(()), |index| Err(format!("{index} is no column")))
}

fn map(input: &mut Input, name: &'static str, f: Map, op: softmax_op) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let (x, y, place) = input.pair((dtype, dtype), shape);
    // SAFETY: the matrices are as they say, or must be refused.
    Planned::new(name, move |options| unsafe { f(x.pointer, y.pointer, options) })
        // SAFETY: as above.
        .needs(move |bytes, options| unsafe { softmax_scratch_size(op, x.pointer, bytes, options) })
        .reads((place != Layout::InPlace).then_some(x.rows))
        .writes([y.rows])
        .checks(move |zero| match op {
            SOFTMAX_OP_SOFTMAX => are_probabilities(&y, zero, false),
            // Within rounding.
            SOFTMAX_OP_LOG_SOFTMAX | SOFTMAX_OP_LOG_SIGMOID => all(&y, |p| p <= 1e-6),
            _ => all(&y, |p| (0.0..=1.0).contains(&p)),
        })
}

fn hardmax(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let (x, y, place) = input.pair((dtype, dtype), shape);
    let ties = if input.rarely(32) { u32::MAX } else { input.below(2) as u32 };
    // SAFETY: as in `map`.
    let call = move |options: *const softmax_options| unsafe {
        softmax_hardmax(x.pointer, y.pointer, ties, options)
    };
    Planned::new("softmax_hardmax", call)
        .needs(move |bytes, options| {
            // SAFETY: as in `map`.
            unsafe { softmax_scratch_size(SOFTMAX_OP_HARDMAX, x.pointer, bytes, options) }
        })
        .reads((place != Layout::InPlace).then_some(x.rows))
        .writes([y.rows])
        .checks(move |zero| are_probabilities(&y, zero, false))
}

/// Bytes of the arithmetic type.
fn arithmetic(dtype: softmax_dtype) -> usize {
    if dtype == SOFTMAX_F64 { 8 } else { 4 }
}

/// An output of elements with this number of bytes.
fn values(input: &mut Input, n: usize, size: usize, null: bool, x: &Arg) -> (*mut c_void, Written) {
    let p: *mut u8 = match (null, size) {
        (true, 8) => input.output_or_null::<f64>(n, Some(x)).cast(),
        (true, _) => input.output_or_null::<f32>(n, Some(x)).cast(),
        (false, 8) => input.output::<f64>(n, Some(x)).cast(),
        (false, 2) => input.output::<u16>(n, Some(x)).cast(),
        (false, _) => input.output::<f32>(n, Some(x)).cast(),
    };
    (p.cast(), Written::of(p, n.saturating_mul(size)))
}

fn logsumexp(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let size = size_of_dtype(dtype);
    let (lse, written) = values(input, x.matrix.rows, size, false, &x);
    // SAFETY: as in `map`.
    Planned::new("softmax_logsumexp", move |options| unsafe {
        softmax_logsumexp(x.pointer, lse, options)
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_scratch_size(SOFTMAX_OP_LOGSUMEXP, x.pointer, bytes, options) }
    })
    .reads([x.rows])
    .writes([written])
}

fn argmax(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let (rows, cols) = (x.matrix.rows, x.matrix.cols);
    let indices: *mut usize = input.output(rows, Some(&x));
    // SAFETY: as in `map`.
    Planned::new("softmax_argmax", move |options| unsafe {
        softmax_argmax(x.pointer, indices, options)
    })
    .reads([x.rows])
    .writes([Written::of(indices, rows)])
    .checks(move |_| all_indices(indices, rows, |index| index < cols))
}

/// Mostly a column.
fn token(input: &mut Input, cols: usize) -> usize {
    if input.rarely(200) { input.u64() as usize } else { input.below(cols.max(1)) }
}

fn log_probs(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let (rows, cols) = (x.matrix.rows, x.matrix.cols);
    let each = input.size(4);
    let n = rows.saturating_mul(each);
    let tokens = input.array(n, |input, _| token(input, cols)).cast_const();
    let size = arithmetic(dtype);
    let (log_probs, written) = values(input, n, size, false, &x);
    let (lse, written_lse) = values(input, rows, size, true, &x);
    Planned::new("softmax_log_probs", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_log_probs(x.pointer, tokens, each, log_probs, lse, options) }
    })
    .reads([x.rows, Written::of(tokens.cast_mut(), n)])
    .writes([written, written_lse])
}

fn top_k(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let (rows, cols) = (x.matrix.rows, x.matrix.cols);
    let most = (20_000 / rows.max(1)).clamp(1, 300);
    let k = if input.below(4) == 0 { input.size(most) } else { input.below(most.min(cols) + 1) };
    let n = rows.saturating_mul(k);
    let indices: *mut usize = input.output(n, Some(&x));
    let (log_probs, written) = values(input, n, arithmetic(dtype), true, &x);
    let (probs, written_probs) = values(input, n, arithmetic(dtype), true, &x);
    let shape = input.array(2, |_, i| [rows, cols][i]).cast_const();
    Planned::new("softmax_top_k", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_top_k(x.pointer, k, log_probs, probs, indices, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_top_k_scratch_size(dtype, shape, 2, 1, k, bytes, options) }
    })
    .reads([x.rows])
    .writes([Written::of(indices, n), written, written_probs])
    .checks(move |_| all_indices(indices, n, |index| index < cols))
}

/// A mask of rows of this shape, and what of it is read.
fn row_mask(input: &mut Input, (rows, cols): (usize, usize)) -> (*const softmax_mask, Written) {
    let dtype = match input.below(4) {
        0 => SOFTMAX_BOOL,
        1 => SOFTMAX_F32,
        _ => input.dtype(),
    };
    let rows = match input.below(16) {
        15 => input.size(9),
        at => [1, rows][at % 2],
    };
    // Words of bits are as large as f32. Far too many columns stay far too many words.
    let bits = input.below(4) == 3;
    let words = if cols < TOO_MANY { cols.div_ceil(32) } else { cols };
    let (of_row, stored) = if bits { (words, SOFTMAX_F32) } else { (cols, dtype) };
    let n = rows.saturating_mul(of_row);
    let data = input.elements(n, stored).cast_const();
    let bytes = n.saturating_mul(size_of_dtype(stored));
    let size = size_of::<softmax_mask>();
    let dtype = if bits { SOFTMAX_BITS } else { dtype };
    let hidden_from = if bits && input.rarely(4) { input.below(cols.saturating_add(2)) } else { 0 };
    let mask = input.descriptor(softmax_mask { size, data, dtype, rows, stride: 0, hidden_from });
    (mask, Written::of(data.cast_mut().cast::<u8>(), bytes))
}

type Masked = unsafe extern "C" fn(
    *const softmax_matrix,
    *const softmax_matrix,
    *const softmax_mask,
    *const softmax_options,
) -> softmax_status;

fn masked(input: &mut Input, name: &'static str, f: Masked) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let (x, y, place) = input.pair((dtype, dtype), shape);
    let (mask, read) = row_mask(input, (x.matrix.rows, x.matrix.cols));
    // SAFETY: as in `map`.
    Planned::new(name, move |options| unsafe { f(x.pointer, y.pointer, mask, options) })
        .reads([read])
        .reads((place != Layout::InPlace).then_some(x.rows))
        .writes([y.rows])
}

fn logsumexp_of(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let (rows, cols) = (x.matrix.rows, x.matrix.cols);
    let mut read = vec![x.rows];
    let mut mask = std::ptr::null();
    if input.below(2) == 1 {
        let (made, written) = row_mask(input, (rows, cols));
        mask = made;
        read.push(written);
    }
    let weights_dtype = if input.rarely(8) { input.dtype() } else { SOFTMAX_F32 };
    let weights_rows = if input.rarely(8) { rows } else { 1 };
    let n = weights_rows.saturating_mul(cols);
    let mut weights = std::ptr::null();
    if input.below(2) == 1 {
        weights = input.elements(n, weights_dtype).cast_const();
        let bytes = n.saturating_mul(size_of_dtype(weights_dtype));
        read.push(Written::of(weights.cast_mut().cast::<u8>(), bytes));
    }
    let (lse, written) = values(input, rows, size_of_dtype(dtype), false, &x);
    Planned::new("softmax_logsumexp_of", move |options| {
        // SAFETY: as in `map`.
        unsafe {
            softmax_logsumexp_of(
                x.pointer,
                mask,
                weights,
                weights_dtype,
                weights_rows,
                lse,
                options,
            )
        }
    })
    .reads(read)
    .writes([written])
}

/// A mask, or null.
fn mask_or_null(
    input: &mut Input,
    shape: (usize, usize),
    read: &mut Vec<Written>,
) -> *const softmax_mask {
    if input.below(2) == 0 {
        return std::ptr::null();
    }
    let (mask, written) = row_mask(input, shape);
    read.push(written);
    mask
}

/// The kind of factors, and one for each row.
fn factors(input: &mut Input, rows: usize, read: &mut Vec<Written>) -> (u32, *const f64) {
    let kind = if input.rarely(64) { 2 } else { input.below(2) as u32 };
    let usual = [1.0, 0.7, 3.0, 0.0, f64::INFINITY, -1.0];
    let factors = input.array(rows, |input, _| input.float(&usual)).cast_const();
    read.push(Written::of(factors.cast_mut().cast::<u8>(), rows.saturating_mul(8)));
    (kind, factors)
}

type MapPerRow = unsafe extern "C" fn(
    *const softmax_matrix,
    *const softmax_matrix,
    *const softmax_mask,
    u32,
    *const f64,
    *const softmax_options,
) -> softmax_status;

fn map_per_row(input: &mut Input, name: &'static str, f: MapPerRow) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let (x, y, place) = input.pair((dtype, dtype), shape);
    let mut read = Vec::new();
    let mask = mask_or_null(input, (x.matrix.rows, x.matrix.cols), &mut read);
    let (kind, factors) = factors(input, x.matrix.rows, &mut read);
    // SAFETY: as in `map`.
    Planned::new(name, move |options| unsafe {
        f(x.pointer, y.pointer, mask, kind, factors, options)
    })
    .reads(read)
    .reads((place != Layout::InPlace).then_some(x.rows))
    .writes([y.rows])
}

type ToOnePerRow = unsafe extern "C" fn(
    *const softmax_matrix,
    *mut c_void,
    *const softmax_mask,
    u32,
    *const f64,
    *const softmax_options,
) -> softmax_status;

fn to_one_per_row(input: &mut Input, name: &'static str, f: ToOnePerRow) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let mut read = vec![x.rows];
    let mask = mask_or_null(input, (x.matrix.rows, x.matrix.cols), &mut read);
    let (kind, factors) = factors(input, x.matrix.rows, &mut read);
    let (y, written) = values(input, x.matrix.rows, size_of_dtype(dtype), false, &x);
    // SAFETY: as in `map`.
    Planned::new(name, move |options| unsafe { f(x.pointer, y, mask, kind, factors, options) })
        .reads(read)
        .writes([written])
}

fn entropy(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let mut read = vec![x.rows];
    let mask = mask_or_null(input, (x.matrix.rows, x.matrix.cols), &mut read);
    let (h, written) = values(input, x.matrix.rows, size_of_dtype(dtype), false, &x);
    // SAFETY: as in `map`.
    Planned::new("softmax_entropy", move |options| unsafe {
        softmax_entropy(x.pointer, mask, h, options)
    })
    .reads(read)
    .writes([written])
}

fn entropy_backward(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    // In place it must be refused.
    let (x, gradient, _) = input.pair((dtype, dtype), shape);
    let mut read = vec![x.rows];
    let mask = mask_or_null(input, (x.matrix.rows, x.matrix.cols), &mut read);
    let upstream = input.elements(x.matrix.rows, dtype).cast_const();
    let bytes = x.matrix.rows.saturating_mul(size_of_dtype(dtype));
    read.push(Written::of(upstream.cast_mut().cast::<u8>(), bytes));
    Planned::new("softmax_entropy_backward", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_entropy_backward(x.pointer, mask, upstream, gradient.pointer, options) }
    })
    .reads(read)
    .writes([gradient.rows])
}

fn perplexity(input: &mut Input) -> Planned {
    let dtype = input.dtype();
    let n = input.size(100);
    let log_probs = input.elements(n, dtype).cast_const();
    let perplexity: *mut f64 = input.output(1, None);
    // SAFETY: as in `map`.
    let call = move |_: *const softmax_options| unsafe {
        softmax_perplexity(log_probs, dtype, n, perplexity)
    };
    Planned::new("softmax_perplexity", call).writes([Written::of(perplexity, 1)]).plain()
}

fn op(input: &mut Input) -> softmax_op {
    if input.rarely(32) { u32::MAX } else { input.below(7) as softmax_op }
}

/// A matrix whose data is not used.
fn shape_only(input: &mut Input) -> Arg {
    let dtype = input.dtype();
    let shape =
        if input.rarely(4) { (input.size(1 << 40), input.size(1 << 40)) } else { input.shape() };
    let matrix = softmax_matrix {
        size: size_of::<softmax_matrix>(),
        data: std::ptr::null_mut(),
        dtype,
        rows: shape.0,
        cols: shape.1,
        stride: input.size(1 << 20),
    };
    let rows = Written::of(std::ptr::null_mut::<u8>(), 0);
    Arg { matrix, pointer: input.descriptor(matrix), rows }
}

fn plan_of(input: &mut Input) -> Planned {
    let (op, x, in_place) = (op(input), shape_only(input), input.below(2) as i32);
    let plan = input.descriptor(softmax_plan {
        size: size_of::<softmax_plan>(),
        kernel: std::ptr::null(),
        threads: 77,
        regime: 77,
        streams: 77,
    });
    Planned::new("softmax_plan_of", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_plan_of(op, x.pointer, in_place, plan, options) }
    })
    .writes([Written::of(plan, 1)])
    .of_its_own()
    .checks(move |_| {
        // SAFETY: the call has written it.
        let plan = unsafe { plan.read() };
        // SAFETY: a name of the library.
        let name = unsafe { CStr::from_ptr(plan.kernel) };
        let known = name != c"unknown" && plan.threads > 0;
        match known && plan.regime <= SOFTMAX_REGIME_PIECES && plan.streams <= 1 {
            true => Ok(()),
            false => Err(format!("the plan is {plan:?}")),
        }
    })
}

fn scratch_size(input: &mut Input) -> Planned {
    let (op, x, bytes) = (op(input), shape_only(input), input.output(1, None));
    Planned::new("softmax_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_scratch_size(op, x.pointer, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

/// The shape of a tensor, its dimensions and elements, and an axis.
fn tensor(input: &mut Input) -> (*const usize, usize, usize, isize) {
    let dims = if input.rarely(128) { input.huge() } else { input.below(6) };
    // The product of the sizes, and of those that are not 0, which bounds the lanes.
    let (mut n, mut all) = (1usize, 1usize);
    let shape = input.array(dims, |input, i| {
        let most = 9000 / all.clamp(1, 9000);
        let size = match input.below(32) {
            31 => input.huge(),
            30 => input.below(most + 1),
            _ if i == 0 && input.rarely(8) => input.below(9000),
            _ => input.below(8).min(most),
        };
        n = n.saturating_mul(size);
        all = all.saturating_mul(size.max(1));
        size
    });
    let axis = if input.rarely(32) { input.u64() as isize } else { input.below(13) as isize - 6 };
    (shape, dims, if dims > 6 { 0 } else { n }, axis)
}

fn along_axis(input: &mut Input, log: bool) -> Planned {
    let dtype = input.dtype();
    let (shape, dims, n, axis) = tensor(input);
    let (x, y) = flat_pair(input, n, dtype);
    let in_place = x == y.cast_const();
    let (name, f) = if log {
        (
            "softmax_log_softmax_axis",
            softmax_log_softmax_axis as unsafe extern "C" fn(_, _, _, _, _, _, _) -> _,
        )
    } else {
        ("softmax_softmax_axis", softmax_softmax_axis as _)
    };
    let bytes = n.saturating_mul(size_of_dtype(dtype));
    // SAFETY: as in `map`.
    Planned::new(name, move |options| unsafe { f(x, y, dtype, shape, dims, axis, options) })
        .needs(move |bytes, options| {
            // SAFETY: as in `map`.
            unsafe { softmax_axis_scratch_size(dtype, shape, dims, axis, bytes, options) }
        })
        .reads((!in_place).then_some(Written::of(x.cast_mut().cast::<u8>(), bytes)))
        .writes([Written::of(y.cast::<u8>(), bytes)])
}

/// An input and an output without gaps: apart, the same, or rarely across each other.
fn flat_pair(input: &mut Input, n: usize, dtype: softmax_dtype) -> (*const c_void, *mut c_void) {
    match input.below(16) {
        8..15 => {
            let x = input.elements(n, dtype);
            (x, x)
        }
        15 if n > 1 && n < 10_000 => {
            let x = input.elements(2 * n, dtype);
            let shift = input.below(n + 1) * size_of_dtype(dtype);
            let y = if x.is_null() { x } else { x.wrapping_byte_add(shift) };
            (x, y)
        }
        _ => (input.elements(n, dtype), input.room(n, size_of_dtype(dtype)).cast()),
    }
}

fn axis_scratch_size(input: &mut Input) -> Planned {
    let dtype = input.dtype();
    let (shape, dims, _, axis) = tensor(input);
    let bytes = input.output(1, None);
    Planned::new("softmax_axis_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_axis_scratch_size(dtype, shape, dims, axis, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

/// A tensor to read.
struct Lanes {
    dtype: softmax_dtype,
    x: *const c_void,
    shape: *const usize,
    dims: usize,
    axis: isize,
    /// Elements.
    n: usize,
    /// Elements along the axis, and lanes; 0 if the call must be refused.
    len: usize,
    lanes: usize,
}

impl Lanes {
    fn new(input: &mut Input) -> Self {
        let dtype = input.dtype();
        let (shape, dims, n, axis) = tensor(input);
        let x = input.elements(n, dtype).cast_const();
        let index = if axis < 0 { axis.wrapping_add_unsigned(dims) } else { axis };
        let known = dims <= 6 && !shape.is_null() && (0..dims as isize).contains(&index);
        // SAFETY: so many sizes were made.
        let sizes = |i: usize| if known { unsafe { shape.add(i).read_unaligned() } } else { 0 };
        let others = (0..if known { dims } else { 0 }).filter(|&i| i != index as usize);
        let lanes = others.fold(usize::from(known), |n, i| n.saturating_mul(sizes(i)));
        let len = if known { sizes(index as usize) } else { 0 };
        Self { dtype, x, shape, dims, axis, n, len, lanes }
    }

    fn read(&self) -> Written {
        Written::of(self.x.cast_mut().cast::<u8>(), self.bytes())
    }

    fn bytes(&self) -> usize {
        self.n.saturating_mul(size_of_dtype(self.dtype))
    }

    /// A result for each lane, `each` of them.
    fn results<T>(&self, input: &mut Input, each: usize, null: bool) -> (*mut T, Written) {
        let n = self.lanes.saturating_mul(each);
        let p: *mut T = if null { input.output_or_null(n, None) } else { input.output(n, None) };
        (p, Written::of(p.cast::<u8>(), n.saturating_mul(size_of::<T>())))
    }

    /// The same in the arithmetic type.
    fn values(&self, input: &mut Input, each: usize, null: bool) -> (*mut c_void, Written) {
        if self.dtype == SOFTMAX_F64 {
            let (p, written) = self.results::<f64>(input, each, null);
            (p.cast(), written)
        } else {
            let (p, written) = self.results::<f32>(input, each, null);
            (p.cast(), written)
        }
    }
}

fn logsumexp_axis(input: &mut Input) -> Planned {
    let of = Lanes::new(input);
    let read = of.read();
    let (y, written) = match size_of_dtype(of.dtype) {
        2 => {
            let (y, written) = of.results::<u16>(input, 1, false);
            (y.cast(), written)
        }
        _ => of.values(input, 1, false),
    };
    let Lanes { dtype, x, shape, dims, axis, .. } = of;
    Planned::new("softmax_logsumexp_axis", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_logsumexp_axis(x, y, dtype, shape, dims, axis, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_axis_scratch_size(dtype, shape, dims, axis, bytes, options) }
    })
    .reads([read])
    .writes([written])
}

fn kl_divergence(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let like = input.like((x.matrix.rows, x.matrix.cols));
    let y = input.matrix(dtype, like);
    let mut read = vec![x.rows, y.rows];
    let mask = mask_or_null(input, (x.matrix.rows, x.matrix.cols), &mut read);
    let (kl, written) = values(input, x.matrix.rows, size_of_dtype(dtype), false, &x);
    // SAFETY: as in `map`.
    Planned::new("softmax_kl_divergence", move |options| unsafe {
        softmax_kl_divergence(x.pointer, y.pointer, mask, kl, options)
    })
    .reads(read)
    .writes([written])
}

fn kl_divergence_backward(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    // In place it must be refused.
    let (x, of_x, _) = input.pair((dtype, dtype), shape);
    let like = input.like((x.matrix.rows, x.matrix.cols));
    let (y, of_y, _) = input.pair((dtype, dtype), like);
    let mut read = vec![x.rows, y.rows];
    let mask = mask_or_null(input, (x.matrix.rows, x.matrix.cols), &mut read);
    let upstream = input.elements(x.matrix.rows, dtype).cast_const();
    let bytes = x.matrix.rows.saturating_mul(size_of_dtype(dtype));
    read.push(Written::of(upstream.cast_mut().cast::<u8>(), bytes));
    let wanted = input.below(4);
    let written = [of_x, of_y].into_iter().enumerate().filter(|&(i, _)| wanted & (1 << i) == 0);
    let written: Vec<Written> = written.map(|(_, gradient)| gradient.rows).collect();
    let pointer =
        |i: usize, of: Arg| if wanted & (1 << i) == 0 { of.pointer } else { std::ptr::null() };
    let (of_x, of_y) = (pointer(0, of_x), pointer(1, of_y));
    Planned::new("softmax_kl_divergence_backward", move |options| {
        // SAFETY: as in `map`.
        unsafe {
            softmax_kl_divergence_backward(
                x.pointer, y.pointer, mask, upstream, of_x, of_y, options,
            )
        }
    })
    .reads(read)
    .writes(written)
}

fn entropy_axis(input: &mut Input) -> Planned {
    let of = Lanes::new(input);
    let read = of.read();
    let (y, written) = match size_of_dtype(of.dtype) {
        2 => {
            let (y, written) = of.results::<u16>(input, 1, false);
            (y.cast(), written)
        }
        _ => of.values(input, 1, false),
    };
    let Lanes { dtype, x, shape, dims, axis, .. } = of;
    Planned::new("softmax_entropy_axis", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_entropy_axis(x, y, dtype, shape, dims, axis, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_axis_scratch_size(dtype, shape, dims, axis, bytes, options) }
    })
    .reads([read])
    .writes([written])
}

fn hardmax_axis(input: &mut Input) -> Planned {
    let dtype = input.dtype();
    let (shape, dims, n, axis) = tensor(input);
    let (x, y) = flat_pair(input, n, dtype);
    let in_place = x == y.cast_const();
    let ties = if input.rarely(32) { u32::MAX } else { input.below(2) as u32 };
    let bytes = n.saturating_mul(size_of_dtype(dtype));
    Planned::new("softmax_hardmax_axis", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_hardmax_axis(x, y, dtype, shape, dims, axis, ties, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_axis_scratch_size(dtype, shape, dims, axis, bytes, options) }
    })
    .reads((!in_place).then_some(Written::of(x.cast_mut().cast::<u8>(), bytes)))
    .writes([Written::of(y.cast::<u8>(), bytes)])
}

fn argmax_axis(input: &mut Input) -> Planned {
    let of = Lanes::new(input);
    let read = of.read();
    let (indices, written) = of.results::<usize>(input, 1, false);
    let Lanes { dtype, x, shape, dims, axis, len, lanes, .. } = of;
    Planned::new("softmax_argmax_axis", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_argmax_axis(x, indices, dtype, shape, dims, axis, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_axis_scratch_size(dtype, shape, dims, axis, bytes, options) }
    })
    .reads([read])
    .writes([written])
    .checks(move |_| all_indices(indices, lanes, |index| index < len))
}

fn top_k_axis(input: &mut Input) -> Planned {
    let of = Lanes::new(input);
    let read = of.read();
    let k = if input.rarely(16) { input.size(9) } else { input.below(of.len.min(8) + 1) };
    let (indices, written) = of.results::<usize>(input, k, false);
    let (log_probs, written_logs) = of.values(input, k, true);
    let (probs, written_probs) = of.values(input, k, true);
    let Lanes { dtype, x, shape, dims, axis, len, lanes, .. } = of;
    Planned::new("softmax_top_k_axis", move |options| {
        // SAFETY: as in `map`.
        unsafe {
            softmax_top_k_axis(x, dtype, shape, dims, axis, k, log_probs, probs, indices, options)
        }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_top_k_scratch_size(dtype, shape, dims, axis, k, bytes, options) }
    })
    .reads([read])
    .writes([written, written_logs, written_probs])
    .checks(move |_| all_indices(indices, lanes.saturating_mul(k), |index| index < len))
}

fn top_k_scratch_size(input: &mut Input) -> Planned {
    let dtype = input.dtype();
    let (shape, dims, _, axis) = tensor(input);
    let (k, bytes) = (input.size(9), input.output(1, None));
    Planned::new("softmax_top_k_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_top_k_scratch_size(dtype, shape, dims, axis, k, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

fn log_probs_axis(input: &mut Input) -> Planned {
    let of = Lanes::new(input);
    let read = of.read();
    let each = input.size(4);
    let n = of.lanes.saturating_mul(each);
    let tokens = input.array(n, |input, _| token(input, of.len)).cast_const();
    let (log_probs, written) = of.values(input, each, false);
    let (lse, written_lse) = of.values(input, 1, true);
    let Lanes { dtype, x, shape, dims, axis, .. } = of;
    Planned::new("softmax_log_probs_axis", move |options| {
        // SAFETY: as in `map`.
        unsafe {
            softmax_log_probs_axis(
                x, dtype, shape, dims, axis, tokens, each, log_probs, lse, options,
            )
        }
    })
    .reads([read, Written::of(tokens.cast_mut(), n)])
    .writes([written, written_lse])
}

fn cross_entropy_axis(input: &mut Input, by_labels: bool) -> Planned {
    let of = Lanes::new(input);
    let read = of.read();
    let (losses, written) = of.results::<f64>(input, 1, true);
    let loss: *mut f64 = input.output_or_null(1, None);
    let size = size_of_dtype(of.dtype);
    let gradient: *mut c_void = match input.below(3) {
        0 => std::ptr::null_mut(),
        1 => of.x.cast_mut(),
        _ => input.room(of.n, size).cast(),
    };
    let in_place = gradient.cast_const() == of.x && !gradient.is_null();
    let (options, mut others) = cross_entropy_options(input, of.lanes, of.len);
    let Lanes { dtype, x, shape, dims, axis, n, len, lanes } = of;
    let bytes = n.saturating_mul(size);
    let (name, call): (_, Call) = if by_labels {
        let labels = labels(input, lanes, len);
        let call = move |o: *const softmax_options| {
            // SAFETY: as in `map`.
            unsafe {
                softmax_cross_entropy_labels_axis(
                    x, dtype, shape, dims, axis, labels, losses, loss, gradient, options, o,
                )
            }
        };
        ("softmax_cross_entropy_labels_axis", Box::new(call))
    } else {
        let probs = input.elements(n, dtype).cast_const();
        others.push(Written::of(probs.cast_mut().cast::<u8>(), bytes));
        let call = move |o: *const softmax_options| {
            // SAFETY: as in `map`.
            unsafe {
                softmax_cross_entropy_probs_axis(
                    x, dtype, shape, dims, axis, probs, losses, loss, gradient, options, o,
                )
            }
        };
        ("softmax_cross_entropy_probs_axis", Box::new(call))
    };
    Planned::new(name, call)
        .needs(move |bytes, o| {
            // SAFETY: as in `map`.
            unsafe { softmax_cross_entropy_axis_scratch_size(dtype, shape, dims, axis, bytes, o) }
        })
        .reads(others)
        .reads((!in_place).then_some(read))
        .writes((!gradient.is_null()).then_some(Written::of(gradient.cast::<u8>(), bytes)))
        .writes([written, Written::of(loss, 1)])
}

fn cross_entropy_axis_scratch_size(input: &mut Input) -> Planned {
    let dtype = input.dtype();
    let (shape, dims, _, axis) = tensor(input);
    let bytes = input.output(1, None);
    Planned::new("softmax_cross_entropy_axis_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_cross_entropy_axis_scratch_size(dtype, shape, dims, axis, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

fn partial_count(input: &mut Input) -> Planned {
    let (len, count) = (input.u64() as usize, input.output(1, None));
    // SAFETY: as in `map`.
    Planned::new("softmax_partial_count", move |_| unsafe { softmax_partial_count(len, count) })
        .writes([Written::of(count, 1)])
        .plain()
}

/// Elements of a shard.
fn shard_len(input: &mut Input) -> usize {
    match input.below(16) {
        12..15 => 4000 + input.below(5000),
        15 => input.size(13_000),
        _ => input.below(300),
    }
}

fn partials(input: &mut Input) -> Planned {
    let (dtype, len) = (input.dtype(), shard_len(input));
    let x = input.elements(len, dtype).cast_const();
    let row_max = if input.rarely(4) {
        input.array(1, |input, _| input.float(&[0.0, 100.0, f64::INFINITY])).cast_const()
    } else {
        std::ptr::null()
    };
    let count = if input.rarely(16) { input.size(5) } else { len.div_ceil(SOFTMAX_BLOCK) };
    let count = if len >= TOO_MANY { 2 } else { count };
    let partials: *mut softmax_partial = input.output(count, None);
    let planned = Planned::new("softmax_partials", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_partials(x, dtype, len, row_max, partials, count, options) }
    });
    // If `row_max` is not the largest element, results are not specified.
    let bits = row_max.is_null();
    Planned { bits, ..planned.writes([Written::of(partials, count)]) }
}

/// Four numbers that may not be a partial.
fn garbage(input: &mut Input) -> softmax_partial {
    const LIKELY: [f64; 6] = [0.0, 1.0, 90.0, 50000.0, f64::NEG_INFINITY, f64::INFINITY];
    let [max, least, sum, rest] = [(); 4].map(|()| input.float(&LIKELY));
    softmax_partial { max, least, sum, rest }
}

/// Mostly the partials of a row.
///
/// Returns whether they are.
fn some_partials(
    input: &mut Input,
    dtype: softmax_dtype,
    count: usize,
) -> (*const softmax_partial, bool) {
    if count >= 8 || input.rarely(4) {
        return (input.array(count, |input, _| garbage(input)), false);
    }
    let len = if count == 0 { 0 } else { (count - 1) * SOFTMAX_BLOCK + 1 + input.below(99) };
    let x = input.memory.take(len * size_of_dtype(dtype), true, 0);
    let partials = input.array(count, |input, _| garbage(input));
    // SAFETY: that is how much was taken.
    unsafe {
        input.fill(x, len, dtype);
        softmax_partials(x.cast(), dtype, len, std::ptr::null(), partials, count, std::ptr::null());
    }
    (partials, true)
}

fn merge(input: &mut Input) -> Planned {
    let dtype = input.dtype();
    let count = input.size(6);
    let (partials, _) = some_partials(input, dtype, count);
    let (row, row_max) = (input.output(1, None), input.output(1, None));
    let planned = Planned::new("softmax_merge", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_merge(partials, count, row, row_max, dtype, options) }
    });
    let again = Some(Written::of(row_max, 1));
    Planned { again, ..planned.writes([Written::of(row, 1)]) }
}

fn shard(input: &mut Input, log: bool) -> Planned {
    let (dtype, len) = (input.dtype(), shard_len(input));
    let (x, y) = flat_pair(input, len, dtype);
    let in_place = x == y.cast_const();
    let (row, _) = some_partials(input, dtype, 1);
    let (name, f) = if log {
        (
            "softmax_shard_log_softmax",
            softmax_shard_log_softmax as unsafe extern "C" fn(_, _, _, _, _, _) -> _,
        )
    } else {
        ("softmax_shard_softmax", softmax_shard_softmax as _)
    };
    let bytes = len.saturating_mul(size_of_dtype(dtype));
    // SAFETY: as in `map`.
    let planned = Planned::new(name, move |options| unsafe { f(row, x, y, dtype, len, options) })
        .reads((!in_place).then_some(Written::of(x.cast_mut().cast::<u8>(), bytes)))
        .writes([Written::of(y.cast::<u8>(), bytes)]);
    // The row is not the one of the shard.
    Planned { bits: false, ..planned }
}

fn shard_logsumexp(input: &mut Input) -> Planned {
    let dtype = input.dtype();
    let (row, bits) = some_partials(input, dtype, 1);
    let size = size_of_dtype(dtype);
    let lse = input.room(1, size);
    let planned = Planned::new("softmax_shard_logsumexp", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_shard_logsumexp(row, lse.cast(), dtype, options) }
    });
    // Random partials may give any number.
    Planned { guards_scratch: false, bits, ..planned.writes([Written::of(lse, size)]) }
}

/// A row in shards, with all steps, compared with the row in one call.
fn shards(input: &mut Input) -> Planned {
    let dtype = input.pick(&[SOFTMAX_F32, SOFTMAX_F64, SOFTMAX_F16, SOFTMAX_BF16]);
    let size = size_of_dtype(dtype);
    let len = 1 + input.below(3 * SOFTMAX_BLOCK);
    let cut = input.below(len / SOFTMAX_BLOCK + 1);
    let (a, count) = (cut * SOFTMAX_BLOCK, len.div_ceil(SOFTMAX_BLOCK));
    let x = input.memory.take(len * size, true, 0);
    // SAFETY: that is how much was taken.
    unsafe { input.fill(x, len, dtype) };
    let [y, z] = [(); 2].map(|()| input.memory.take(len * size, true, 0));
    let partials: *mut softmax_partial = input.memory.take(count * 32, true, 0).cast();
    let row: *mut softmax_partial = input.memory.take(32, true, 0).cast();
    let row_max: *mut f64 = input.memory.take(8, true, 0).cast();
    let log = input.below(2) == 1;
    let call = move |options: *const softmax_options| {
        let matrix = |data: *mut u8| softmax_matrix {
            size: size_of::<softmax_matrix>(),
            data: data.cast(),
            dtype,
            rows: 1,
            cols: len,
            stride: len,
        };
        let (from, to) = (matrix(x), matrix(z));
        let mut max = std::ptr::null();
        let ok = |status| if status == softmax_status::Ok { Ok(()) } else { Err(status) };
        let mut all = || -> Result<(), softmax_status> {
            // SAFETY: all the memory was taken for this.
            unsafe {
                loop {
                    let (b, rest) = (x.add(a * size), len - a);
                    let of_b = partials.add(cut);
                    ok(softmax_partials(x.cast(), dtype, a, max, partials, cut, options))?;
                    ok(softmax_partials(b.cast(), dtype, rest, max, of_b, count - cut, options))?;
                    match softmax_merge(partials, count, row, row_max, dtype, options) {
                        softmax_status::Again if max.is_null() => max = row_max.cast_const(),
                        status => break ok(status)?,
                    }
                }
                let f = if log { softmax_shard_log_softmax } else { softmax_shard_softmax };
                ok(f(row, x.cast(), y.cast(), dtype, a, options))?;
                let (b, to_b) = (x.add(a * size), y.add(a * size));
                ok(f(row, b.cast(), to_b.cast(), dtype, len - a, options))?;
                let f: Map = if log { softmax_log_softmax } else { softmax_softmax };
                ok(f(&raw const from, &raw const to, options))
            }
        };
        all().err().unwrap_or(softmax_status::Ok)
    };
    let planned = Planned::new("shards of a row", call)
        .writes([Written::of(y, len * size), Written::of(z, len * size)])
        .writes([Written::of(partials, count), Written::of(row, 1), Written::of(row_max, 1)])
        .checks(move |_| {
            // SAFETY: the call has written them.
            let bytes = |p: *mut u8| unsafe { std::slice::from_raw_parts(p, len * size) };
            if bytes(y) == bytes(z) { Ok(()) } else { Err("the shards are not the row".into()) }
        });
    // Some steps may be complete when one fails; and unused partials depend on the kernel.
    Planned { whole: false, ..planned }
}

fn attention_dtypes(input: &mut Input) -> (softmax_dtype, softmax_dtype) {
    let dtype = input.dtype();
    if input.below(3) == 2 { (dtype, input.dtype()) } else { (dtype, dtype) }
}

/// The batch, heads and queries of a matrix of scores, and its keys.
fn attention_shape(input: &mut Input) -> ([usize; 3], usize) {
    let of = [input.below(4), 1 + input.below(4), 1 + input.below(6)];
    let keys = match input.below(16) {
        15 if of.iter().product::<usize>() <= 4 => 4090 + input.below(5000),
        14 => 0,
        n if n % 2 == 0 => input.below(20),
        _ => input.below(100),
    };
    (of, keys)
}

/// The options of attention for scores with this batch, these heads and queries, rows and keys; and
/// whether there are sinks.
fn attention_options(
    input: &mut Input,
    [batch, mut heads, mut queries]: [usize; 3],
    (rows, keys): (usize, usize),
) -> (*const softmax_attention, bool) {
    match input.below(64) {
        62 => heads = input.size(6),
        63 => queries = input.size(8),
        _ => {}
    }
    let mask_dtype = match input.below(32) {
        31 => input.pick(&[SOFTMAX_F64, 5, u32::MAX]),
        n => [SOFTMAX_F32, SOFTMAX_F16, SOFTMAX_BF16, SOFTMAX_BOOL][n % 4],
    };
    let of = [batch, heads, queries];
    let mask_shape = of.map(|n| match input.below(32) {
        31 => input.size(6),
        n if n % 3 == 2 => 1,
        _ => n,
    });
    let mut flags = input.below(32) as u32;
    if input.rarely(128) {
        flags |= 1 << input.below(32);
    }
    let mask_keys = match input.below(32) {
        31 => input.size(100),
        n if n % 2 == 0 => keys,
        _ => input.below(keys.saturating_add(1)),
    };
    let is_short = flags & SOFTMAX_ATTENTION_MASK_KEYS != 0;
    let mask_cols = if is_short { mask_keys } else { keys };
    let n = mask_shape.into_iter().fold(mask_cols, usize::saturating_mul);
    let possible = n <= Memory::MOST / 8 || n >= TOO_MANY;
    let mask = if possible && input.below(2) == 1 {
        input.elements(n, mask_dtype).cast_const()
    } else {
        std::ptr::null()
    };
    let per_head = |input: &mut Input| match input.below(4) {
        3 => input.elements(heads, SOFTMAX_F32).cast::<f32>().cast_const(),
        _ => std::ptr::null(),
    };
    let [mask_slopes, alibi, sinks] = [per_head(input), per_head(input), per_head(input)];
    let lengths_count = match input.below(16) {
        15 => input.size(9),
        n if n % 2 == 0 => batch,
        _ => rows,
    };
    let lengths = if input.below(3) == 2 {
        let length =
            |input: &mut Input, _| if input.rarely(32) { usize::MAX } else { token(input, keys) };
        input.array(lengths_count, length).cast_const()
    } else {
        std::ptr::null()
    };
    let soft_cap = if input.below(3) == 2 { input.float(&[30.0, 1.0, 1e-3, 1e7]) } else { 0.0 };
    let window = |input: &mut Input| {
        if input.rarely(8) { input.u64() as usize } else { input.below(40) }
    };
    let (window, window_ahead) = (window(input), window(input));
    let offset = match input.below(16) {
        14 => isize::MIN,
        15 => input.u64() as isize,
        _ => input.below(64) as isize - 20,
    };
    let offsets_count = match input.below(16) {
        15 => input.size(9),
        n if n % 2 == 0 => batch,
        _ => rows,
    };
    let offsets = if input.below(3) == 2 {
        let offset = |input: &mut Input, _| match input.below(32) {
            31 => input.u64() as isize,
            _ => input.below(64) as isize - 20,
        };
        // Beside them, the flag is refused.
        flags &= if input.rarely(16) { u32::MAX } else { !SOFTMAX_ATTENTION_OFFSET };
        input.array(offsets_count, offset).cast_const()
    } else {
        std::ptr::null()
    };
    let options = input.descriptor(softmax_attention {
        size: size_of::<softmax_attention>(),
        heads,
        queries,
        flags,
        soft_cap,
        mask,
        mask_dtype,
        mask_shape,
        mask_slopes,
        alibi,
        sinks,
        lengths,
        lengths_count,
        window,
        offset,
        window_ahead,
        offsets,
        offsets_count,
        mask_keys,
    });
    (options.cast_const(), !sinks.is_null())
}

fn attention(input: &mut Input) -> Planned {
    let dtypes = attention_dtypes(input);
    let (of, keys) = attention_shape(input);
    let (scores, probs, place) = input.pair(dtypes, (of.iter().product(), keys));
    let (rows, keys) = (scores.matrix.rows, scores.matrix.cols);
    let (options, has_sinks) = attention_options(input, of, (rows, keys));
    let (lse, written) = values(input, rows, arithmetic(dtypes.0), true, &scores);
    Planned::new("softmax_attention_softmax", move |o| {
        // SAFETY: as in `map`.
        unsafe { softmax_attention_softmax(scores.pointer, probs.pointer, lse, options, o) }
    })
    .needs(move |bytes, o| {
        // SAFETY: as in `map`.
        unsafe { softmax_attention_scratch_size(scores.pointer, probs.pointer, bytes, o) }
    })
    .reads((place != Layout::InPlace).then_some(scores.rows))
    .writes([probs.rows, written])
    .checks(move |zero| are_probabilities(&probs, zero, has_sinks))
}

fn attention_scratch_size(input: &mut Input) -> Planned {
    let (scores, mut probs) = (shape_only(input), shape_only(input));
    if input.below(4) != 3 {
        probs.pointer = scores.pointer;
    }
    let bytes = input.output(1, None);
    Planned::new("softmax_attention_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_attention_scratch_size(scores.pointer, probs.pointer, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

/// A tile of a whole with so many rows and keys: its first row and shape.
fn tile(
    input: &mut Input,
    (rows, keys): (usize, usize),
) -> (*const softmax_tile, usize, (usize, usize)) {
    let (mut first_row, mut first_key) = (input.below(rows + 1), input.below(keys + 1));
    let (n, left) = (input.below(rows - first_row + 1), keys - first_key);
    let cols = if input.below(2) == 0 { left } else { input.below(left + 1) };
    match input.below(64) {
        62 => first_row = input.size(9),
        63 => first_key = input.size(9),
        _ => {}
    }
    let size = size_of::<softmax_tile>();
    let place = softmax_tile { size, rows, keys, first_row, first_key };
    (input.descriptor(place).cast_const(), first_row, (n, cols))
}

/// States of rows; and whether they are states and not any bits.
fn states(input: &mut Input, n: usize) -> (*mut softmax_online_row, bool) {
    let kind = input.below(4);
    let p = input.output::<softmax_online_row>(n, None);
    if p.is_null() || !p.is_aligned() || n >= TOO_MANY {
        return (p, true);
    }
    if kind == 3 {
        let likely = [0.0, -4.0, 1.0, 60000.0, f64::NEG_INFINITY, f64::INFINITY, f64::NAN];
        for i in 0..n {
            let state = [(); 22].map(|()| 0).map(|_: u64| input.float(&likely).to_bits());
            // SAFETY: that is how much was taken.
            unsafe { p.add(i).write(softmax_online_row { state }) };
        }
        return (p, false);
    }
    let cols = if kind == 0 || n == 0 { 0 } else { 1 + input.below(20) };
    let x = input.memory.take(4 * n * cols, true, 0);
    let factors = input.memory.take(4 * n, true, 0);
    let size = size_of::<softmax_tile>();
    let place =
        softmax_tile { size, rows: n, keys: 5000, first_row: 0, first_key: input.below(40) };
    let attention = softmax_attention { heads: 1, queries: n.max(1), ..NO_OPTIONS };
    let scores = softmax_matrix {
        size: size_of::<softmax_matrix>(),
        data: x.cast(),
        dtype: SOFTMAX_F32,
        rows: n,
        cols,
        stride: cols,
    };
    let (scores, none) = (&raw const scores, std::ptr::null());
    // SAFETY: that is how much was taken.
    unsafe {
        input.fill(x, n * cols, SOFTMAX_F32);
        softmax_online_new(p, n);
        softmax_online_tile(&place, scores, scores, p, factors.cast(), &attention, none);
    }
    (p, true)
}

/// The plain options of attention, without heads and queries.
const NO_OPTIONS: softmax_attention = softmax_attention {
    size: size_of::<softmax_attention>(),
    heads: 0,
    queries: 0,
    flags: 0,
    soft_cap: 0.0,
    mask: std::ptr::null(),
    mask_dtype: SOFTMAX_F32,
    mask_shape: [0; 3],
    mask_slopes: std::ptr::null(),
    alibi: std::ptr::null(),
    sinks: std::ptr::null(),
    lengths: std::ptr::null(),
    lengths_count: 0,
    window: 0,
    offset: 0,
    window_ahead: 0,
    offsets: std::ptr::null(),
    offsets_count: 0,
    mask_keys: 0,
};

fn online_new(input: &mut Input) -> Planned {
    let n = input.size(40);
    let states = input.output::<softmax_online_row>(n, None);
    // SAFETY: as in `map`.
    Planned::new("softmax_online_new", move |_| unsafe { softmax_online_new(states, n) })
        .writes([Written::of(states, n)])
        .plain()
}

fn online_tile(input: &mut Input) -> Planned {
    let dtypes = match input.below(16) {
        15 => (input.dtype(), input.dtype()),
        n if n % 2 == 0 => (SOFTMAX_F32, SOFTMAX_F32),
        _ => (SOFTMAX_F32, input.pick(&[SOFTMAX_F16, SOFTMAX_BF16])),
    };
    let (of, keys) = attention_shape(input);
    let all = of.iter().product();
    let (place, _, shape) = tile(input, (all, keys));
    let (scores, weights, layout) = input.pair(dtypes, shape);
    let rows = scores.matrix.rows;
    let (states, good) = states(input, rows);
    let factors = input.output::<f32>(rows, Some(&scores));
    let (options, _) = attention_options(input, of, (all, keys));
    let planned = Planned::new("softmax_online_tile", move |o| {
        // SAFETY: as in `map`.
        unsafe {
            let (scores, weights) = (scores.pointer, weights.pointer);
            softmax_online_tile(place, scores, weights, states, factors, options, o)
        }
    })
    .reads((layout != Layout::InPlace).then_some(scores.rows))
    .writes([weights.rows, Written::of(states, rows), Written::of(factors, rows)])
    .checks(move |_| if good { all_weights(&weights) } else { Ok(()) });
    Planned { bits: good, ..planned }
}

/// Weights are below 2^15, or NaN.
fn all_weights(weights: &Arg) -> Checked {
    all(weights, |w| (0.0..=32768.0).contains(&w))
}

fn online_finish(input: &mut Input) -> Planned {
    let (of, keys) = attention_shape(input);
    let rows = of.iter().product();
    let (place, _, (n, _)) = tile(input, (rows, keys));
    let n = if input.rarely(32) { input.size(9) } else { n };
    let (states, good) = states(input, n);
    let (reciprocals, logs) = (input.output::<f32>(n, None), input.output_or_null::<f32>(n, None));
    let (options, _) = attention_options(input, of, (rows, keys));
    let planned = Planned::new("softmax_online_finish", move |o| {
        // SAFETY: as in `map`.
        unsafe { softmax_online_finish(place, states, n, reciprocals, logs, options, o) }
    })
    .reads([Written::of(states, n)])
    .writes([Written::of(reciprocals, n), Written::of(logs, n)]);
    Planned { bits: good, ..planned }
}

fn online_merge(input: &mut Input) -> Planned {
    let n = input.size(40);
    let ((mut a, _), (b, _)) = (states(input, n), states(input, n));
    if input.rarely(24) {
        a = b;
    }
    let [f, g] = [(); 2].map(|()| input.output::<f32>(n, None));
    // SAFETY: as in `map`.
    Planned::new("softmax_online_merge", move |_| unsafe { softmax_online_merge(a, b, n, f, g) })
        .reads([Written::of(b, n)])
        .writes([Written::of(a, n), Written::of(f, n), Written::of(g, n)])
        .plain()
}

fn online_array(input: &mut Input, to: bool) -> Planned {
    let n = input.size(40);
    let len = n.saturating_mul(SOFTMAX_ONLINE_NUMBERS);
    let (of, numbers) = if to {
        (states(input, n).0, input.output::<f64>(len, None))
    } else {
        let numbers = input.elements(len, SOFTMAX_F64).cast::<f64>();
        (input.output(n, None), numbers)
    };
    let (states, numbers_read) = (Written::of(of, n), Written::of(numbers, len));
    if to {
        // SAFETY: as in `map`.
        Planned::new("softmax_online_to_array", move |_| unsafe {
            softmax_online_to_array(of, n, numbers)
        })
        .reads([states])
        .writes([numbers_read])
        .plain()
    } else {
        // SAFETY: as in `map`.
        Planned::new("softmax_online_from_array", move |_| unsafe {
            softmax_online_from_array(numbers, n, of)
        })
        .reads([numbers_read])
        .writes([states])
        .plain()
    }
}

fn merge_outputs(input: &mut Input) -> Planned {
    let (parts, shape) = (input.below(5), (input.below(12), input.below(80)));
    let (mut read, mut first) = (Vec::new(), None);
    let mut outputs = Vec::new();
    let mut lists = Vec::new();
    for _ in 0..parts {
        let like = input.like(shape);
        let dtype = if input.rarely(64) { input.dtype() } else { SOFTMAX_F32 };
        let part = input.matrix(dtype, like);
        let logs = input.elements(like.0, SOFTMAX_F32).cast::<f32>();
        read.extend([part.rows, Written::of(logs, like.0)]);
        first.get_or_insert(part);
        // A matrix of sizes that overflow has no list.
        outputs.push(part.pointer);
        lists.push(logs.cast_const());
    }
    let outputs = input.array(parts, |_, i| outputs[i]).cast_const();
    let lists = input.array(parts, |_, i| lists[i]).cast_const();
    let count = if input.rarely(48) { input.huge() } else { parts };
    let output = input.matrix(SOFTMAX_F32, shape);
    let logs = input.output::<f32>(shape.0, first.as_ref());
    Planned::new("softmax_merge_outputs", move |o| {
        // SAFETY: as in `map`.
        unsafe { softmax_merge_outputs(outputs, lists, count, output.pointer, logs, o) }
    })
    .reads(read)
    .writes([output.rows, Written::of(logs, shape.0)])
}

const IGNORED: i64 = -100;

fn labels(input: &mut Input, rows: usize, cols: usize) -> *const i64 {
    input.array(rows, |input, _| match input.below(16) {
        15 => IGNORED,
        _ => token(input, cols) as i64,
    })
}

/// The options of a loss, or null.
fn cross_entropy_options(
    input: &mut Input,
    rows: usize,
    cols: usize,
) -> (*const softmax_cross_entropy, Vec<Written>) {
    if input.below(4) == 3 {
        return (std::ptr::null(), Vec::new());
    }
    let weights = if input.below(3) == 2 {
        input.elements(cols, SOFTMAX_F32).cast::<f32>().cast_const()
    } else {
        std::ptr::null()
    };
    let weights_f64 = if input.below(3) == 2 {
        input.elements(cols, SOFTMAX_F64).cast::<f64>().cast_const()
    } else {
        std::ptr::null()
    };
    let row_factors = if input.below(3) == 2 {
        input.elements(rows, SOFTMAX_F64).cast::<f64>().cast_const()
    } else {
        std::ptr::null()
    };
    let mut value = softmax_cross_entropy {
        size: size_of::<softmax_cross_entropy>(),
        reduction: if input.rarely(64) { 2 } else { input.below(2) as u32 },
        flags: if input.rarely(64) { 6 } else { input.below(2) as u32 },
        ignore_index: input.pick(&[IGNORED, 0, i64::MIN]),
        label_smoothing: 0.0,
        z_loss: 0.0,
        weights,
        row_factors,
        gradient_factor: 1.0,
        weights_f64,
    };
    if input.below(2) == 1 {
        value.label_smoothing = input.float(&[0.1, 1.0, 0.0, -1.0]);
        value.z_loss = input.float(&[1e-4, 0.0, 1e300, -1.0]);
        value.gradient_factor = input.float(&[1.0, 65536.0, 0.0, f64::INFINITY, f64::NAN]);
    }
    let read = vec![
        Written::of(weights.cast_mut(), if cols >> 63 > 0 { 0 } else { cols }),
        Written::of(weights_f64.cast_mut(), if cols >> 63 > 0 { 0 } else { cols }),
        Written::of(row_factors.cast_mut(), if rows >> 63 > 0 { 0 } else { rows }),
    ];
    (input.descriptor(value), read)
}

fn cross_entropy(input: &mut Input, by_labels: bool) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let (logits, gradient, place) = input.pair((dtype, dtype), shape);
    let (rows, cols) = (logits.matrix.rows, logits.matrix.cols);
    let wanted = input.below(4) != 3;
    let losses: *mut f64 = input.output_or_null(rows, Some(&logits));
    let loss: *mut f64 = input.output_or_null(1, Some(&logits));
    let (options, mut read) = cross_entropy_options(input, rows, cols);
    let to = if wanted { gradient.pointer } else { std::ptr::null() };
    let (name, call): (_, Call) = if by_labels {
        let labels = labels(input, rows, cols);
        let call = move |o: *const softmax_options| {
            // SAFETY: as in `map`.
            unsafe {
                softmax_cross_entropy_labels(logits.pointer, labels, losses, loss, to, options, o)
            }
        };
        ("softmax_cross_entropy_labels", Box::new(call))
    } else {
        let shape = input.like((rows, cols));
        let targets = input.matrix(dtype, shape);
        read.push(targets.rows);
        let call = move |o: *const softmax_options| {
            let targets = targets.pointer;
            // SAFETY: as in `map`.
            unsafe {
                softmax_cross_entropy_probs(logits.pointer, targets, losses, loss, to, options, o)
            }
        };
        ("softmax_cross_entropy_probs", Box::new(call))
    };
    // Without a descriptor no gradient is written.
    let in_place = place == Layout::InPlace && !to.is_null();
    Planned::new(name, call)
        .needs(move |bytes, o| {
            // SAFETY: as in `map`.
            unsafe { softmax_cross_entropy_scratch_size(logits.pointer, bytes, o) }
        })
        .reads(read)
        .reads((!in_place).then_some(logits.rows))
        .writes((!to.is_null()).then_some(gradient.rows))
        .writes([Written::of(losses, rows), Written::of(loss, 1)])
}

fn divisor(input: &mut Input) -> Planned {
    let (rows, cols) = (input.size(100), input.size(100));
    let (options, _) = cross_entropy_options(input, rows, cols);
    let labels = labels(input, rows, cols);
    let divisor: *mut f64 = input.output(1, None);
    let planned = Planned::new("softmax_cross_entropy_divisor", move |o| {
        // SAFETY: as in `map`.
        unsafe { softmax_cross_entropy_divisor(labels, rows, cols, divisor, options, o) }
    });
    Planned { guards_scratch: false, ..planned.writes([Written::of(divisor, 1)]) }
}

fn reduce(input: &mut Input) -> Planned {
    let rows = input.size(100);
    let losses = input.elements(rows, SOFTMAX_F64).cast::<f64>().cast_const();
    let divisor = input.float(&[1.0, 100.0, 0.0]);
    let loss: *mut f64 = input.output(1, None);
    let planned = Planned::new("softmax_cross_entropy_reduce", move |_| {
        // SAFETY: as in `map`.
        unsafe { softmax_cross_entropy_reduce(losses, rows, divisor, loss) }
    });
    planned.writes([Written::of(loss, 1)]).plain()
}

fn cross_entropy_scratch_size(input: &mut Input) -> Planned {
    let (logits, bytes) = (shape_only(input), input.output(1, None));
    Planned::new("softmax_cross_entropy_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_cross_entropy_scratch_size(logits.pointer, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

type Backward = unsafe extern "C" fn(
    *const softmax_matrix,
    *const softmax_matrix,
    *const softmax_matrix,
    *const softmax_options,
) -> softmax_status;

fn backward(input: &mut Input, name: &'static str, f: Backward) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    // In place it must be refused.
    let (probs, gradient, _) = input.pair((dtype, dtype), shape);
    let like = input.like((probs.matrix.rows, probs.matrix.cols));
    let upstream = input.matrix(dtype, like);
    Planned::new(name, move |options| {
        // SAFETY: as in `map`.
        unsafe { f(probs.pointer, upstream.pointer, gradient.pointer, options) }
    })
    .reads([probs.rows, upstream.rows])
    .writes([gradient.rows])
}

fn sampler(input: &mut Input, rows: usize, cols: usize) -> *const softmax_sampler {
    let share = |input: &mut Input, plain: f64| match input.below(3) {
        2 => input.float(&[0.9, 0.5, 0.1, 0.0, 1.0, 2.0]),
        _ => plain,
    };
    let bias_count = if input.below(3) == 2 { input.size(6) } else { 0 };
    let bias_tokens = input.array(bias_count, |input, _| token(input, cols)).cast_const();
    let bias = input.array(bias_count, |input, _| {
        input.float(&[1.0, -5.0, f64::NEG_INFINITY, 100.0, 0.0]) as f32
    });
    let history_count = match input.below(8) {
        5 => 1,
        6 => rows,
        7 => input.size(5),
        _ => 0,
    };
    let len = if input.rarely(64) { input.huge() } else { input.below(30) };
    let history = input.array(len, |input, _| token(input, cols)).cast_const();
    let mut start = 0;
    let starts = if history_count == 0 { 0 } else { history_count.saturating_add(1) };
    let history_starts = input.array(starts, |input, i| {
        start = if input.rarely(100) { input.u64() as usize } else { start + input.below(4) };
        start = if start > len { len } else { start };
        if i == history_count {
            len
        } else if input.rarely(100) {
            input.u64() as usize
        } else {
            start
        }
    });
    let each = |input: &mut Input, usual: &[f64]| match input.below(4) {
        3 => input.array(rows, |input, _| input.float(usual)).cast_const(),
        _ => std::ptr::null(),
    };
    let counters = |input: &mut Input| match input.below(4) {
        3 => input.array(rows, |input, _| input.below(9) as u64).cast_const(),
        _ => std::ptr::null(),
    };
    let sampler = softmax_sampler {
        size: size_of::<softmax_sampler>(),
        seed: input.u64(),
        step: if input.rarely(8) { input.u64() } else { 3 },
        first_row: if input.rarely(8) { input.u64() } else { 0 },
        temperature: input.float(&[1.0, 0.7, 0.0, f64::INFINITY, 1e30, 1e-30, -1.0]),
        order: if input.rarely(64) { 2 } else { input.below(2) as u32 },
        method: if input.rarely(64) { 2 } else { input.below(2) as u32 },
        top_k: if input.below(3) == 2 { input.size(50) } else { 0 },
        top_p: share(input, 1.0),
        min_p: share(input, 0.0),
        typical_p: share(input, 1.0),
        repetition_penalty: share(input, 1.0),
        presence_penalty: share(input, 0.0),
        frequency_penalty: share(input, 0.0),
        bias_tokens,
        bias,
        bias_count,
        history,
        history_starts,
        history_count,
        min_keep: if input.below(3) == 2 { input.size(50) } else { 0 },
        mask: if input.below(3) == 2 { row_mask(input, (rows, cols)).0 } else { std::ptr::null() },
        temperatures: each(input, &[1.0, 0.7, 0.0, f64::INFINITY, -1.0]),
        top_ks: match input.below(4) {
            3 => input.array(rows, |input, _| input.below(50)).cast_const(),
            _ => std::ptr::null(),
        },
        top_ps: each(input, &[1.0, 0.9, 0.5, 2.0]),
        min_ps: each(input, &[0.0, 0.1, 1.0]),
        typical_ps: each(input, &[1.0, 0.9, 0.5]),
        seeds: counters(input),
        steps: counters(input),
    };
    input.descriptor(sampler)
}

/// The options for so many experts, and `k`.
fn router(input: &mut Input, cols: usize) -> (*const softmax_router, usize) {
    let bias = match input.below(3) {
        2 => input.array(cols.min(5000), |input, _| input.float(&[0.0, 1.0, -0.5, 3e38]) as f32),
        _ => std::ptr::null_mut(),
    };
    let groups = if input.below(3) == 2 { input.size(9) } else { 0 };
    let router = softmax_router {
        size: size_of::<softmax_router>(),
        k: if input.rarely(16) { input.size(300) } else { input.below(cols.min(9) + 1) },
        scoring: if input.rarely(64) { 2 } else { input.below(2) as u32 },
        flags: if input.rarely(64) { 2 } else { input.below(2) as u32 },
        bias,
        groups,
        group_limit: if input.rarely(16) { input.size(9) } else { 1 + groups / 2 },
        group_score: if input.rarely(64) { 2 } else { input.below(2) as u32 },
        scaling_factor: input.float(&[1.0, 2.5, -1.0]),
    };
    (input.descriptor(router), router.k)
}

fn route(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let x = input.matrix(dtype, shape);
    let (rows, cols) = (x.matrix.rows, x.matrix.cols);
    let (router, k) = router(input, cols);
    let n = rows.saturating_mul(k);
    let experts: *mut u32 = input.output(n, Some(&x));
    let (weights, written) = values(input, n, arithmetic(dtype), false, &x);
    Planned::new("softmax_route", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_route(x.pointer, weights, experts, router, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_route_scratch_size(x.pointer, router, bytes, options) }
    })
    .reads([x.rows])
    .writes([Written::of(experts, n), written])
    .checks(move |_| {
        // SAFETY: the call has written them.
        let wrong = (0..n).map(|i| unsafe { experts.add(i).read() }).find(|&i| i as usize >= cols);
        wrong.map_or(Ok(()), |index| Err(format!("{index} is no expert")))
    })
}

fn speculative(input: &mut Input, sequences: usize) -> *const softmax_speculative {
    const HEAT: [f64; 7] = [1.0, 0.7, 0.0, f64::INFINITY, 1e30, 1e-30, -1.0];
    let counters = |input: &mut Input| match input.below(3) {
        2 => input.array(sequences, |input, _| if input.rarely(100) { input.u64() } else { 7 }),
        _ => std::ptr::null_mut(),
    };
    let speculative = softmax_speculative {
        size: size_of::<softmax_speculative>(),
        seed: input.u64(),
        step: if input.rarely(8) { input.u64() } else { 3 },
        first_row: if input.rarely(8) { input.u64() } else { 0 },
        temperature: input.float(&HEAT),
        seeds: counters(input),
        steps: counters(input),
        temperatures: match input.below(3) {
            2 => input.array(sequences, |input, _| input.float(&HEAT)),
            _ => std::ptr::null_mut(),
        },
        flags: if input.rarely(64) { 4 } else { input.below(4) as u32 },
    };
    input.descriptor(speculative)
}

fn verify(input: &mut Input) -> Planned {
    let dtype = input.dtype();
    // Sequences of some tokens each, whose rows fit, mostly.
    let sequences = if input.rarely(64) { input.size(100) } else { input.below(6) };
    let mut end = 0;
    let offsets = input.array(sequences.saturating_add(1), |input, i| {
        end += if i == 0 { 0 } else { input.below(4) };
        if input.rarely(200) { input.below(9) } else { end }
    });
    let (_, cols) = input.shape();
    let shape = input.like((end.saturating_add(sequences), cols));
    let target = input.matrix(dtype, shape);
    let (rows, cols) = (target.matrix.rows, target.matrix.cols);
    let len = end.max(9);
    let drafted = input.array(len, |input, _| token(input, cols)).cast_const();
    let (mut draft, mut read) = (std::ptr::null(), vec![target.rows]);
    if input.below(3) > 0 {
        let shape = input.like((end, cols));
        let rows = input.matrix(dtype, shape);
        read.push(rows.rows);
        draft = rows.pointer;
    }
    let speculative = speculative(input, sequences);
    let tokens: *mut usize = input.output(rows, Some(&target));
    let accepted: *mut usize = input.output(sequences, None);
    let (x, p) = (target.pointer, speculative);
    Planned::new("softmax_verify", move |options| {
        // SAFETY: as in `map`.
        unsafe {
            softmax_verify(x, draft, drafted, offsets, sequences, tokens, accepted, p, options)
        }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_verify_scratch_size(x, p, bytes, options) }
    })
    .reads(read)
    .writes([Written::of(tokens, rows), Written::of(accepted, sequences)])
    .checks(move |_| all_indices(tokens, rows, |token| token < cols || token == SOFTMAX_NO_TOKEN))
}

fn verify_scratch_size(input: &mut Input) -> Planned {
    let target = shape_only(input);
    let speculative = speculative(input, 3);
    let bytes = input.output(1, None);
    Planned::new("softmax_verify_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_verify_scratch_size(target.pointer, speculative, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

fn route_scratch_size(input: &mut Input) -> Planned {
    let logits = shape_only(input);
    let (router, _) = router(input, logits.matrix.cols);
    let bytes = input.output(1, None);
    Planned::new("softmax_route_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_route_scratch_size(logits.pointer, router, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

fn sample(input: &mut Input) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let logits = input.matrix(dtype, shape);
    let (rows, cols) = (logits.matrix.rows, logits.matrix.cols);
    let each = if input.rarely(16) { input.size(5) } else { 1 };
    let n = rows.saturating_mul(each);
    let sampler = sampler(input, rows, cols);
    let draws: *mut usize = input.output(n, Some(&logits));
    Planned::new("softmax_sample", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_sample(logits.pointer, draws, each, sampler, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_sample_scratch_size(logits.pointer, sampler, bytes, options) }
    })
    .reads([logits.rows])
    .writes([Written::of(draws, n)])
    .checks(move |_| all_indices(draws, n, |token| token < cols || token == SOFTMAX_NO_TOKEN))
}

fn kept(input: &mut Input, log: bool) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let logits = input.matrix(dtype, shape);
    let (rows, cols) = (logits.matrix.rows, logits.matrix.cols);
    let most = (20_000 / rows.max(1)).clamp(1, 300);
    let room = if input.below(4) == 0 { input.size(most) } else { cols.min(most) };
    let n = rows.saturating_mul(room);
    let sampler = sampler(input, rows, cols);
    let tokens: *mut usize = input.output(n, Some(&logits));
    let (probs, written) = values(input, n, arithmetic(dtype), false, &logits);
    let counts: *mut usize = input.output(rows, Some(&logits));
    let (name, f) = if log {
        (
            "softmax_kept_log_probs",
            softmax_kept_log_probs as unsafe extern "C" fn(_, _, _, _, _, _, _) -> _,
        )
    } else {
        ("softmax_kept_probs", softmax_kept_probs as _)
    };
    Planned::new(name, move |options| {
        // SAFETY: as in `map`.
        unsafe { f(logits.pointer, tokens, probs, counts, room, sampler, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_sample_scratch_size(logits.pointer, sampler, bytes, options) }
    })
    .reads([logits.rows])
    .writes([Written::of(tokens, n), written, Written::of(counts, rows)])
    .checks(move |_| {
        all_indices(counts, rows, |count| count <= room.min(cols))?;
        for row in 0..rows {
            // SAFETY: the call has written as many.
            let count = unsafe { *counts.add(row) };
            let tokens = tokens.wrapping_add(row * room);
            all_indices(tokens, count, |token| token < cols)?;
        }
        Ok(())
    })
}

fn filtered(input: &mut Input, log: bool) -> Planned {
    let (dtype, shape) = (input.dtype(), input.shape());
    let to = if input.rarely(8) {
        input.dtype()
    } else if dtype == SOFTMAX_F64 {
        SOFTMAX_F64
    } else {
        SOFTMAX_F32
    };
    let (logits, probs, place) = input.pair((dtype, to), shape);
    let sampler = sampler(input, logits.matrix.rows, logits.matrix.cols);
    let (name, f) = if log {
        (
            "softmax_filtered_log_probs",
            softmax_filtered_log_probs as unsafe extern "C" fn(_, _, _, _) -> _,
        )
    } else {
        ("softmax_filtered_probs", softmax_filtered_probs as _)
    };
    Planned::new(name, move |options| {
        // SAFETY: as in `map`.
        unsafe { f(logits.pointer, probs.pointer, sampler, options) }
    })
    .needs(move |bytes, options| {
        // SAFETY: as in `map`.
        unsafe { softmax_sample_scratch_size(logits.pointer, sampler, bytes, options) }
    })
    .reads((place != Layout::InPlace).then_some(logits.rows))
    .writes([probs.rows])
    .checks(move |zero| if log { Ok(()) } else { are_probabilities(&probs, zero, false) })
}

fn sample_scratch_size(input: &mut Input) -> Planned {
    let logits = shape_only(input);
    let sampler = sampler(input, 3, 10);
    let bytes = input.output(1, None);
    Planned::new("softmax_sample_scratch_size", move |options| {
        // SAFETY: as in `map`.
        unsafe { softmax_sample_scratch_size(logits.pointer, sampler, bytes, options) }
    })
    .writes([Written::of(bytes, 1)])
    .of_its_own()
}

/// A string of the library.
fn is_text(p: *const c_char) -> Checked {
    // SAFETY: the library says that it is one.
    let empty = p.is_null() || unsafe { CStr::from_ptr(p) }.is_empty();
    if empty { Err("a text is null or empty".into()) } else { Ok(()) }
}

fn kernel(input: &mut Input) -> Planned {
    let index = input.size(8);
    let name: *mut *const c_char = input.output_or_null(1, None);
    let available: *mut i32 = input.output_or_null(1, None);
    // SAFETY: as in `map`.
    Planned::new("softmax_kernel", move |_| unsafe { softmax_kernel(index, name, available) })
        .writes([Written::of(name, 1), Written::of(available, 1)])
        .plain()
        .checks(move |_| {
            // SAFETY: the call has written it.
            if name.is_null() { Ok(()) } else { is_text(unsafe { name.read() }) }
        })
}

fn kernel_in_use(input: &mut Input) -> Planned {
    let name: *mut *const c_char = input.output(1, None);
    // SAFETY: as in `map`.
    Planned::new("softmax_kernel_in_use", move |o| unsafe { softmax_kernel_in_use(name, o) })
        .writes([Written::of(name, 1)])
        .of_its_own()
        // SAFETY: the call has written it.
        .checks(move |_| is_text(unsafe { name.read() }))
}

fn strings(input: &mut Input) -> Planned {
    let status = if input.below(2) == 0 { input.below(20) as i32 } else { input.u64() as i32 };
    Planned::new("softmax_status_message", |_| softmax_status::Ok)
        .plain()
        .checks(move |_| is_text(softmax_version()).and(is_text(softmax_status_message(status))))
}
