//! The one list of kernels: name, requirements, detection, entry points.
//!
//! Entry points are called through a [`Ready`], which proves that this CPU has what the kernel
//! needs: nothing else checks that.

use std::ops::Deref;
use std::sync::atomic::{AtomicPtr, Ordering};

use half::{bf16, f16};

use crate::call::columns::Columns;
use crate::call::entropies::EntropyGradient;
use crate::call::kl::KlDivergence;
use crate::call::losses::{BackwardCall, LossCall};
use crate::call::masses::{Exps, Masses, SPAN, Scanned};
use crate::call::online::TileCall;
use crate::call::partials::{self, MergedPartials, Partial};
use crate::call::picks::Picks;
use crate::call::pieces::{self, BlockSum, Extremes, Merged, Piece, PieceOptions, RowShift, Whole};
use crate::call::ragged::RaggedCall;
use crate::call::routes::RouteCall;
use crate::call::scores::Scores;
use crate::call::{Call, Masked, Op, Special};
use crate::isa::short::Short;
use crate::isa::vector::{Across, Io, Lanes, Vector};
use crate::mem::fpenv::{Environment, in_default_environment};
use crate::num::element::{ByType, Element, Family};
use crate::num::exp2::Contract;
use crate::num::guess::Learned;
use crate::num::scale::Scale;
use crate::{isa, op, scalar};

/// The entry points of a kernel for one element type.
///
/// # Safety
/// They may be called only on a CPU that has what the kernel needs, which a [`Ready`] proves.
#[derive(Debug)]
pub(crate) struct Ops<T: Element> {
    softmax: unsafe fn(&mut Call<T>),
    softmax_ragged: unsafe fn(&mut RaggedCall<T>),
    log_softmax: unsafe fn(&mut Call<T>),
    logsumexp: unsafe fn(&mut Call<T>),
    entropy: unsafe fn(&mut Call<T>),
    entropy_gradient: unsafe fn(&mut EntropyGradient<T>),
    kl_divergence: unsafe fn(&mut KlDivergence<T>),
    /// Sigmoid, hardmax and their relatives.
    map: unsafe fn(&mut Call<T>),
    softmax_columns: unsafe fn(&mut Columns<T>) -> bool,
    log_softmax_columns: unsafe fn(&mut Columns<T>) -> bool,
    pick: unsafe fn(&mut Picks<T>),
    route: unsafe fn(&mut RouteCall<T>) -> bool,
    loss: unsafe fn(&mut LossCall<T>) -> bool,
    backward: unsafe fn(&mut BackwardCall<T>),
    exps: ExpsOf<T>,
    hide: unsafe fn(&[T], &[u32], &mut [T]),
    excess: ExcessOf<T>,
    widen: unsafe fn(&[T], &mut [T::Arithmetic]),
    pieces: PieceOps<T>,
    /// The same for logarithms; probabilities of half types have an arithmetic of their own.
    log_pieces: PieceOps<T>,
    /// Whether long rows are worth computing in pieces.
    in_pieces: bool,
}

/// The entry points for every element type.
#[derive(Debug)]
pub(crate) struct AllOps;

impl Family for AllOps {
    type Of<T: Element> = Ops<T>;
}

/// The entry points of a kernel for pieces of rows.
#[derive(Debug)]
pub(crate) struct PieceOps<T: 'static> {
    first: fn(&Piece<T>, &Scale) -> RowShift,
    /// `sum` and `finish` require options that are [`PieceOptions::checked`], and `finish` an
    /// output.
    sum: unsafe fn(&mut Piece<T>, &Scale, &RowShift, PieceOptions, &mut [BlockSum]) -> Extremes,
    merge: fn(&Scale, &RowShift, Extremes, &[BlockSum]) -> Merged,
    finish: unsafe fn(&mut Piece<T>, Op, &Scale, &Whole, PieceOptions),
    logsumexp: unsafe fn(&Scale, &Whole) -> T,
    /// Sums blocks for probabilities and for logarithms.
    partials: Partials<T>,
    merge_partials: fn(&Scale, &[Partial]) -> MergedPartials,
}

type Partials<T> = fn(&partials::Summing<T>, &[T], &Scale, Option<f64>, &mut [Partial]);
type ExpsOf<T> =
    unsafe fn(&[T], Option<&[u32]>, &Scale, &mut Option<Learned>, &mut [f32]) -> Option<Exps>;
type ExcessOf<T> = unsafe fn(
    &[<T as Element>::Arithmetic],
    Option<&[<T as Element>::Arithmetic]>,
    &mut [u64],
) -> bool;
type Scan = unsafe fn(Masses<'_>, f32, f32, &mut [u64], &mut [u64]) -> Scanned;
type Logs = unsafe fn(&[f32], &mut [f64]);
type Noise = unsafe fn([u32; 4], &[u32], &mut [[f64; 2]]);

type Attention<T, U> = unsafe fn(&mut Scores<T, U>) -> bool;

/// The entry points of a kernel for attention, by the types of scores and probabilities.
#[derive(Debug)]
pub(crate) struct AttentionOps {
    f32: Attention<f32, f32>,
    f32_f16: Attention<f32, f16>,
    f32_bf16: Attention<f32, bf16>,
    f16: Attention<f16, f16>,
    f16_f32: Attention<f16, f32>,
    bf16: Attention<bf16, bf16>,
    bf16_f32: Attention<bf16, f32>,
    f64: Attention<f64, f64>,
}

/// `$attend` for every pair of types; the generic arguments are those for f32, for probabilities of
/// half types, and for f64.
macro_rules! attention {
    ($attend:path, $($f32:ty, $short:ty, $f64:ty)?) => {{
        use $attend as attend;
        AttentionOps {
            f32: attend::<$($f32,)? f32, f32>,
            f32_f16: attend::<$($short,)? f32, f16>,
            f32_bf16: attend::<$($short,)? f32, bf16>,
            f16: attend::<$($short,)? f16, f16>,
            f16_f32: attend::<$($f32,)? f16, f32>,
            bf16: attend::<$($short,)? bf16, bf16>,
            bf16_f32: attend::<$($f32,)? bf16, f32>,
            f64: attend::<$($f64,)? f64, f64>,
        }
    }};
}

type Tile<U> = unsafe fn(&mut TileCall<U>);

/// The entry points of a kernel for tiles of attention, by the type of weights.
#[derive(Debug)]
pub(crate) struct TileOps {
    f32: Tile<f32>,
    f16: Tile<f16>,
    bf16: Tile<bf16>,
}

/// A type for the weights of a tile of scores: f32, f16 or bf16.
pub trait Weight: Element + sealed::Weighs {}

use sealed::Weighs;

macro_rules! weights {
    ($($t:ident),*) => {
        $(impl Weight for $t {}

        impl Weighs for $t {
            fn tile(kernel: &Kernel) -> unsafe fn(&mut TileCall<$t>) {
                kernel.tiles.$t
            }
        })*
    };
}

weights!(f32, f16, bf16);

/// A type for the probabilities of scores of type `T`: `T` itself; f32 if `T` is f16 or bf16; f16
/// or bf16 if `T` is f32.
pub trait Probs<T: Element>: Element + sealed::Attends<T> {}

use sealed::Attends;

mod sealed {
    use super::{Element, Kernel, Scores, TileCall};

    /// What kernels need from the types of scores and probabilities. Sealed: no other crate can
    /// name or implement it.
    #[doc(hidden)]
    pub trait Attends<T: Element>: Sized {
        /// A kernel's entry point.
        fn attend(kernel: &Kernel) -> unsafe fn(&mut Scores<T, Self>) -> bool;
    }

    /// What kernels need from the type of weights. Sealed likewise.
    #[doc(hidden)]
    pub trait Weighs: Sized {
        /// A kernel's entry point.
        fn tile(kernel: &Kernel) -> unsafe fn(&mut TileCall<Self>);
    }
}

macro_rules! probs {
    ($($t:ty => $u:ty: $field:ident),*) => {
        $(impl Probs<$t> for $u {}

        impl Attends<$t> for $u {
            fn attend(kernel: &Kernel) -> unsafe fn(&mut Scores<$t, $u>) -> bool {
                kernel.attention.$field
            }
        })*
    };
}

probs!(
    f32 => f32: f32, f32 => f16: f32_f16, f32 => bf16: f32_bf16,
    f16 => f16: f16, f16 => f32: f16_f32,
    bf16 => bf16: bf16, bf16 => f32: bf16_f32,
    f64 => f64: f64
);

/// A kernel: all operations for one instruction set.
pub struct Kernel {
    name: &'static str,
    requires: &'static [&'static str],
    detect: fn() -> bool,
    ops: ByType<AllOps>,
    attention: AttentionOps,
    tiles: TileOps,
    scan: Scan,
    logs: Logs,
    noise: Noise,
    limits: Limits,
}

impl std::fmt::Debug for Kernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernel").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Kernel {
    /// The name: `avx512`, `avx2`, `neon`, `portable` or `scalar`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The CPU features that it needs, by their names in Rust's `target_feature`.
    pub fn requires(&self) -> &'static [&'static str] {
        self.requires
    }

    /// Whether this CPU can run it.
    pub fn is_available(&self) -> bool {
        (self.detect)()
    }
}

/// The loops of a kernel that speed is measured against; plain ones if this CPU cannot run it.
pub fn limits(kernel: &Kernel) -> &Limits {
    if kernel.is_available() { &kernel.limits } else { &PLAIN_LIMITS }
}

/// A kernel that this CPU can run.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct Ready(&'static Kernel);

impl Deref for Ready {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        self.0
    }
}

/// A kernel that was found ready, once there is one. An atomic, not a lock: in a process forked
/// while another thread holds a lock, it is never released.
#[doc(hidden)]
#[derive(Debug)]
pub struct Chosen(AtomicPtr<Kernel>);

impl Chosen {
    /// No kernel yet.
    #[allow(clippy::new_without_default)] // it is made for statics
    pub const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// The kernel.
    #[inline]
    pub fn get(&self) -> Option<Ready> {
        // SAFETY: the pointer is null, or made from a reference that lives for ever.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }.map(Ready)
    }

    /// Sets it.
    pub fn set(&self, kernel: Ready) {
        self.0.store(std::ptr::from_ref(kernel.0).cast_mut(), Ordering::Release);
    }
}

impl Ready {
    /// The kernel, if this CPU can run it.
    pub fn of(kernel: &'static Kernel) -> Option<Self> {
        kernel.is_available().then_some(Self(kernel))
    }

    /// The kernel.
    pub fn kernel(self) -> &'static Kernel {
        self.0
    }

    fn ops<T: Element>(self) -> &'static Ops<T> {
        T::of(&self.0.ops)
    }

    /// Does the work of `call` in the default floating-point environment. Consumes the call, so
    /// that its views are free again. Inlined, because a copied call waits for its fields to be
    /// stored.
    #[inline(always)]
    pub fn run<T: Element>(self, mut call: Call<'_, T>) {
        // Rows without elements have no result, and there may be any number of them.
        if call.cols == 0 && !call.op().is_one_value() {
            return;
        }
        let ops = self.ops();
        // The calls inside are indirect, as [`Environment`] requires.
        let _environment = Environment::enter();
        // SAFETY: the kernel is ready.
        unsafe {
            match call.op() {
                Op::Softmax => (ops.softmax)(&mut call),
                Op::LogSoftmax => (ops.log_softmax)(&mut call),
                Op::LogSumExp => (ops.logsumexp)(&mut call),
                Op::Entropy => (ops.entropy)(&mut call),
                _ => (ops.map)(&mut call),
            }
        }
    }

    /// Does the work of `call` in the default floating-point environment.
    pub fn run_ragged<T: Element>(self, mut call: RaggedCall<'_, T>) {
        let ops = self.ops();
        let of_row = match call.op() {
            Op::Softmax => None,
            Op::LogSoftmax => Some(ops.log_softmax),
            Op::LogSumExp => Some(ops.logsumexp),
            _ => Some(ops.map),
        };
        // The calls inside are indirect, as [`Environment`] requires.
        let _environment = Environment::enter();
        // SAFETY: the kernel is ready.
        unsafe {
            let Some(of_row) = of_row else { return (ops.softmax_ragged)(&mut call) };
            for row in 0..call.rows() {
                let mut call = call.call_of_row(row);
                if call.cols > 0 || call.op() == Op::LogSumExp {
                    of_row(&mut call);
                }
            }
        }
    }

    /// Softmax or log-softmax of columns; does nothing for other operations. Returns whether there
    /// was memory; if not, nothing is written.
    pub fn columns<T: Element>(self, op: Op, mut call: Columns<'_, T>) -> bool {
        let ops = self.ops();
        // SAFETY: the kernel is ready.
        unsafe {
            match op {
                Op::Softmax => (ops.softmax_columns)(&mut call),
                Op::LogSoftmax => (ops.log_softmax_columns)(&mut call),
                _ => true,
            }
        }
    }

    /// Does the work of `call`. Returns whether there was memory for the exponentials of a row; if
    /// not, nothing is written.
    pub fn attend<T: Element, U: Probs<T>>(self, mut call: Scores<'_, T, U>) -> bool {
        // SAFETY: the kernel is ready.
        unsafe { U::attend(self.0)(&mut call) }
    }

    /// Weighs a tile of scores, in the default floating-point environment.
    pub fn weigh<U: Weight>(self, mut call: TileCall<'_, U>) {
        let _environment = Environment::enter();
        // SAFETY: the kernel is ready.
        unsafe { U::tile(self.0)(&mut call) };
    }

    /// [`Ready::attend`] from a type to itself.
    pub fn attend_rows<T: Element>(self, mut call: Scores<'_, T, T>) -> bool {
        struct ToItself;

        impl Family for ToItself {
            type Of<T: Element> = Attention<T, T>;
        }

        let AttentionOps { f32, f64, f16, bf16, .. } = self.0.attention;
        // SAFETY: the kernel is ready.
        unsafe { T::of(&ByType::<ToItself> { f32, f64, f16, bf16 })(&mut call) }
    }

    /// Picks elements of every row, in the default floating-point environment.
    pub fn pick<T: Element>(self, mut picks: Picks<'_, T>) {
        let _environment = Environment::enter();
        // SAFETY: the kernel is ready.
        unsafe { (self.ops().pick)(&mut picks) };
    }

    /// Routes the tokens of every row. Returns whether there was memory; if not, nothing is
    /// written.
    pub fn route<T: Element>(self, mut call: RouteCall<'_, T>) -> bool {
        // SAFETY: the kernel is ready.
        unsafe { (self.ops().route)(&mut call) }
    }

    /// Computes the gradients of the entropies of rows.
    pub fn entropy_gradient<T: Element>(self, mut call: EntropyGradient<'_, T>) {
        if call.cols > 0 {
            let _environment = Environment::enter();
            // SAFETY: the kernel is ready.
            unsafe { (self.ops().entropy_gradient)(&mut call) };
        }
    }

    /// Computes divergences of rows, or their gradients.
    pub fn kl_divergence<T: Element>(self, mut call: KlDivergence<'_, T>) {
        let _environment = Environment::enter();
        // SAFETY: the kernel is ready.
        unsafe { (self.ops().kl_divergence)(&mut call) };
    }

    /// Computes the losses of a call, and its gradient; rows without columns have a loss of 0.
    /// Returns whether there was memory for the exponentials of a row; if not, nothing is written.
    pub fn loss<T: Element>(self, mut call: LossCall<'_, T>) -> bool {
        if call.cols == 0 {
            call.losses.fill(0.0);
            return true;
        }
        // SAFETY: the kernel is ready.
        unsafe { (self.ops().loss)(&mut call) }
    }

    /// Computes the gradient of a call.
    pub fn backward<T: Element>(self, mut call: BackwardCall<'_, T>) {
        // SAFETY: the kernel is ready.
        unsafe { (self.ops().backward)(&mut call) };
    }

    /// Computes the exponentials of a row, yet to be multiplied by [`Exps::factor`]. With words of
    /// bits, elements whose bit is not set count as -inf. `None` if the row has NaN or +inf, or
    /// nothing but -inf, or if `exps` is not as long as the row, or there are fewer bits.
    pub fn exps<T: Element>(
        self,
        x: &[T],
        seen: Option<&[u32]>,
        scale: &Scale,
        learned: &mut Option<Learned>,
        exps: &mut [f32],
    ) -> Option<Exps> {
        let bits = x.len().div_ceil(32);
        if x.is_empty() || x.len() != exps.len() || seen.is_some_and(|words| words.len() < bits) {
            return None;
        }
        // SAFETY: the kernel is ready.
        unsafe { (self.ops().exps)(x, seen, scale, learned, exps) }
    }

    /// Copies a row, with -inf where the bit of an element is not set or missing; elements that
    /// only one slice has are left alone.
    pub fn hide<T: Element>(self, x: &[T], seen: &[u32], y: &mut [T]) {
        // SAFETY: the kernel is ready.
        unsafe { (self.ops::<T>().hide)(x, seen, y) };
    }

    /// Sums the units by which the probabilities of `p` are above those of `q`, or all their units:
    /// separately for each span of the row, into `sums`, which has one place for each. Returns
    /// whether all numbers are probabilities; if not, or if lengths differ, the sums are nothing.
    pub fn excess<T: Element>(
        self,
        p: &[T::Arithmetic],
        q: Option<&[T::Arithmetic]>,
        sums: &mut [u64],
    ) -> bool {
        let spans = p.len().div_ceil(SPAN);
        if sums.len() != spans || q.is_some_and(|q| q.len() != p.len()) {
            return false;
        }
        // SAFETY: the kernel is ready.
        unsafe { (self.ops::<T>().excess)(p, q, sums) }
    }

    /// Converts a row to the arithmetic type; elements that only one slice has are left alone.
    pub fn widen<T: Element>(self, x: &[T], y: &mut [T::Arithmetic]) {
        let n = x.len().min(y.len());
        // SAFETY: the kernel is ready.
        unsafe { (self.ops::<T>().widen)(&x[..n], &mut y[..n]) };
    }

    /// Sums the units of the elements whose exponentials, by the row's own shift, are at least
    /// `high`: separately for each span of the row, into `spans` (as many as it has). Collects the
    /// others whose exponentials are at least `low`, as ranks in order of index, into `band` (as
    /// many as it has room for). Both bounds are at least [`LEAST`](crate::LEAST).
    pub fn scan(
        self,
        masses: Masses<'_>,
        low: f32,
        high: f32,
        spans: &mut [u64],
        band: &mut [u64],
    ) -> Scanned {
        // SAFETY: the kernel is ready.
        unsafe { (self.0.scan)(masses, low, high, spans, band) }
    }

    /// Writes the natural logarithms [`ln`](crate::ln); numbers that only one slice has are left
    /// alone.
    pub fn logs(self, x: &[f32], logs: &mut [f64]) {
        // SAFETY: the kernel is ready.
        unsafe { (self.0.logs)(x, logs) }
    }

    /// Writes random numbers in (0, 1) for the elements `2 * pair` and `2 * pair + 1` of a row,
    /// from 128 random bits of the row; pairs that only one slice has are left alone.
    pub fn noise(self, bits: [u32; 4], pairs: &[u32], noise: &mut [[f64; 2]]) {
        // SAFETY: the kernel is ready.
        unsafe { (self.0.noise)(bits, pairs, noise) }
    }

    /// The functions for rows in pieces, if this kernel gains by them.
    pub fn pieces<T: Element>(self, op: Op) -> Option<Pieces<T>> {
        let Ops { pieces, log_pieces, in_pieces, .. } = self.ops();
        in_pieces.then_some(Pieces { ops: if op == Op::Softmax { pieces } else { log_pieces } })
    }

    /// The functions for rows in shards.
    pub fn shards<T: Element>(self) -> Shards<T> {
        let Ops { pieces, log_pieces, .. } = self.ops();
        Shards { probs: Pieces { ops: pieces }, logs: Pieces { ops: log_pieces } }
    }
}

/// A kernel's functions for rows in pieces. Their order: [`Pieces::first`], [`Pieces::sum`] for
/// every piece, [`Pieces::merge`], [`Pieces::finish`] for every piece. Made by a [`Ready`].
#[derive(Clone, Copy, Debug)]
pub struct Pieces<T: 'static> {
    ops: &'static PieceOps<T>,
}

impl<T: Element> Pieces<T> {
    /// The shift to try first, from the row's first elements.
    pub fn first(&self, x: &Piece<T>, scale: &Scale) -> RowShift {
        let _environment = Environment::enter();
        (self.ops.first)(x, scale)
    }

    /// Sums the blocks of a piece, each into one of `sums`.
    pub fn sum(
        &self,
        piece: &mut Piece<T>,
        scale: &Scale,
        shift: &RowShift,
        options: PieceOptions,
        sums: &mut [BlockSum],
    ) -> Extremes {
        // SAFETY: the kernel is ready, and the options are checked.
        unsafe { (self.ops.sum)(piece, scale, shift, options.checked(piece), sums) }
    }

    /// Adds the sums of all blocks of a row, and judges the shift.
    pub fn merge(
        &self,
        scale: &Scale,
        shift: &RowShift,
        extremes: Extremes,
        sums: &[BlockSum],
    ) -> Merged {
        let _environment = Environment::enter();
        (self.ops.merge)(scale, shift, extremes, sums)
    }

    /// Finishes a piece, with the options that it was summed with.
    pub fn finish(
        &self,
        piece: &mut Piece<T>,
        op: Op,
        scale: &Scale,
        whole: &Whole,
        options: PieceOptions,
    ) {
        if !piece.is_read_only() {
            // SAFETY: the kernel is ready, the options are checked, and there is an output.
            unsafe { (self.ops.finish)(piece, op, scale, whole, options.checked(piece)) };
        }
    }

    /// The log-sum-exp of a row.
    pub fn logsumexp(&self, scale: &Scale, whole: &Whole) -> T {
        let _environment = Environment::enter();
        // SAFETY: the kernel is ready.
        unsafe { (self.ops.logsumexp)(scale, whole) }
    }

    /// Writes the result of a row for which [`Merged::Special`] was returned, or, for log-sum-exp,
    /// returns it.
    pub fn special(&self, row: &mut Piece<T>, op: Op, masked: Masked) -> T {
        in_default_environment(|| pieces::special(row, op, masked))
    }
}

/// A kernel's functions for rows in shards. Made by a [`Ready`].
#[derive(Clone, Copy, Debug)]
pub struct Shards<T: 'static> {
    probs: Pieces<T>,
    logs: Pieces<T>,
}

impl<T: Element> Shards<T> {
    /// Computes the partials of a shard that starts at a multiple of [`BLOCK`](crate::BLOCK) in its
    /// row, one for each block. `row_max` is the row's largest element, if
    /// [`MergedPartials::Again`] has told it.
    pub fn partials(&self, x: &[T], scale: &Scale, row_max: Option<f64>, partials: &mut [Partial]) {
        let _environment = Environment::enter();
        let options = PieceOptions::default();
        let sum = |piece: &mut Piece<T>, shift: &RowShift, sums: &mut [BlockSum]| {
            let extremes = self.logs.sum(piece, scale, shift, options, sums);
            // Probabilities of half types have sums of their own. `piece` is a single block here.
            if !T::IS_ARITHMETIC
                && let [sum] = sums
            {
                let mut of_probs = [BlockSum::ZERO];
                self.probs.sum(piece, scale, shift, options, &mut of_probs);
                sum.0.lo = of_probs[0].0.hi;
            }
            extremes
        };
        (self.logs.ops.partials)(&sum, x, scale, row_max, partials);
    }

    /// Adds the partials of all blocks of a row.
    pub fn merge_partials(&self, scale: &Scale, partials: &[Partial]) -> MergedPartials {
        let _environment = Environment::enter();
        (self.logs.ops.merge_partials)(scale, partials)
    }

    /// Finishes a shard of a row whose partials were merged, or, for log-sum-exp, returns it.
    pub fn finish_shard(
        &self,
        piece: &mut Piece<T>,
        op: Op,
        scale: &Scale,
        row: &MergedPartials,
        masked: Masked,
    ) -> T {
        let _environment = Environment::enter();
        let special = match row {
            MergedPartials::Whole(whole) => {
                let options = PieceOptions::default();
                match op {
                    Op::LogSumExp => return self.logs.logsumexp(scale, whole),
                    Op::Softmax if !T::IS_ARITHMETIC => {
                        self.probs.finish(piece, op, scale, &whole.of_probs(), options);
                    }
                    _ => self.logs.finish(piece, op, scale, whole, options),
                }
                return T::ZERO;
            }
            // A row that has to be summed again has no result yet.
            MergedPartials::Again(_) | MergedPartials::Nan => Special::Nan,
            MergedPartials::PlusInf => Special::PlusInf,
            MergedPartials::AllMasked => Special::AllMasked,
        };
        pieces::write_special(piece, &special, op, masked)
    }
}

/// The loops of a kernel that speed is measured against.
#[derive(Debug)]
pub struct Limits {
    read: unsafe fn(&[f32]) -> f32,
    copy: unsafe fn(&[f32], &mut [f32]),
    scale: unsafe fn(&mut [f32], f32),
    arithmetic_f32: unsafe fn(usize) -> u64,
    arithmetic_f64: unsafe fn(usize) -> u64,
}

impl Limits {
    /// Reads all elements, and returns the largest.
    pub fn read(&self, x: &[f32]) -> f32 {
        // SAFETY: `Kernel::limits` gives out those of kernels that are available.
        unsafe { (self.read)(x) }
    }

    /// Copies `x` to `y`, past the caches if the CPU has such stores; elements that only one slice
    /// has are left alone.
    pub fn copy(&self, x: &[f32], y: &mut [f32]) {
        let n = x.len().min(y.len());
        // SAFETY: `Kernel::limits` gives out those of kernels that are available.
        unsafe { (self.copy)(&x[..n], &mut y[..n]) };
    }

    /// Multiplies every element.
    pub fn scale(&self, x: &mut [f32], factor: f32) {
        // SAFETY: `Kernel::limits` gives out those of kernels that are available.
        unsafe { (self.scale)(x, factor) };
    }

    /// Does arithmetic in registers for `turns` turns. Returns the number of operations on one f32:
    /// fused multiply-adds, or multiplications and additions if the CPU cannot fuse them.
    pub fn arithmetic_f32(&self, turns: usize) -> u64 {
        // SAFETY: `Kernel::limits` gives out those of kernels that are available.
        unsafe { (self.arithmetic_f32)(turns) }
    }

    /// As [`Limits::arithmetic_f32`], in f64.
    pub fn arithmetic_f64(&self, turns: usize) -> u64 {
        // SAFETY: `Kernel::limits` gives out those of kernels that are available.
        unsafe { (self.arithmetic_f64)(turns) }
    }
}

/// Makes entry points: generic functions over vectors `S` and types, each compiled for an
/// instruction set.
macro_rules! entries {
    ($generics:tt $bounds:tt
        $($name:ident($($arg:ident: $ty:ty),*) $(-> $r:ty)? = $path:path;)*
    ) => {$(
        entries!(@ $generics $bounds $name($($arg: $ty),*) $(-> $r)? = $path);
    )*};
    (@ [$($generics:tt)*] [$($bounds:tt)*]
        $name:ident($($arg:ident: $ty:ty),*) $(-> $r:ty)? = $path:path
    ) => {
        /// # Safety
        /// The CPU has the instruction set, and the arguments are valid as the called function
        /// requires.
        pub(super) unsafe fn $name<$($generics)*>($($arg: $ty),*) $(-> $r)?
        where
            $($bounds)*
        {
            // SAFETY: as this function's. A call is made only of what was checked, so its pointers
            // are valid as its fields say.
            unsafe {
                let simd = S::assume();
                simd.vectorize(
                    #[inline(always)]
                    || $path(simd, $($arg),*),
                )
            }
        }
    };
}

/// The entry points of the generic algorithms.
mod generic {
    use super::*;

    entries! {
        [S, T] [
            S: Lanes<T> + Io<T::Arithmetic>,
            T: Element,
        ]
        log_softmax(call: &mut Call<T>) = op::softmax::log_softmax;
        logsumexp(call: &mut Call<T>) = op::softmax::logsumexp;
        entropy(call: &mut Call<T>) = op::entropy::entropy;
        entropy_gradient(call: &mut EntropyGradient<T>) = op::entropy::gradient;
        kl_divergence(call: &mut KlDivergence<T>) = op::kl::divergence;
        map(call: &mut Call<T>) = op::decide::map;
        softmax_columns(call: &mut Columns<T>) -> bool = op::columns::columns::<S, T, false>;
        log_softmax_columns(call: &mut Columns<T>) -> bool = op::columns::columns::<S, T, true>;
        pick(picks: &mut Picks<T>) = op::decide::pick;
        loss(call: &mut LossCall<T>) -> bool = op::loss::loss;
        backward(call: &mut BackwardCall<T>) = op::loss::backward;
        exps(
            x: &[T],
            seen: Option<&[u32]>,
            scale: &Scale,
            learned: &mut Option<Learned>,
            exps: &mut [f32]
        ) -> Option<Exps> = op::sample::exps;
        hide(x: &[T], seen: &[u32], y: &mut [T]) = op::sample::hide;
        widen(x: &[T], y: &mut [T::Arithmetic]) = op::sample::widen;
        sum_pieces(
            piece: &mut Piece<T>,
            scale: &Scale,
            shift: &RowShift,
            options: PieceOptions,
            sums: &mut [BlockSum]
        ) -> Extremes = op::pieces::sum;
        finish_pieces(
            piece: &mut Piece<T>,
            op: Op,
            scale: &Scale,
            whole: &Whole,
            options: PieceOptions
        ) = op::pieces::finish;
        logsumexp_of_pieces(scale: &Scale, whole: &Whole) -> T = op::pieces::logsumexp;
    }
    entries! {
        [S, T] [
            S: Lanes<T> + Across + Vector<E = T::Arithmetic>,
            T: Element,
            T::Arithmetic: Contract,
        ]
        route(call: &mut RouteCall<T>) -> bool = op::route::route;
    }
    entries! {
        [S, A] [ S: Vector, A: Element ]
        excess(p: &[A], q: Option<&[A]>, sums: &mut [u64]) -> bool = op::excess::sums;
    }
    entries! {
        [S, T, U] [
            S: op::attend::Masks + Io<T> + Io<U>,
            T: Element,
            U: Element,
        ]
        attend(call: &mut Scores<T, U>) -> bool = op::attend::attend;
    }
    entries! {
        [S, U] [
            S: op::attend::Masks + Io<U> + Vector<E = f32>,
            U: Element,
        ]
        tile(call: &mut TileCall<U>) = op::online::tile;
    }
    entries! {
        [S] [ S: Across + Vector<E = f32> ]
        scan(
            masses: Masses<'_>,
            low: f32,
            high: f32,
            spans: &mut [u64],
            band: &mut [u64]
        ) -> Scanned = op::sample::scan;
        logs(x: &[f32], logs: &mut [f64]) = op::sample::logs;
        noise(bits: [u32; 4], pairs: &[u32], noise: &mut [[f64; 2]]) = op::sample::noise;
        read(x: &[f32]) -> f32 = op::limits::read;
        copy(x: &[f32], y: &mut [f32]) = op::limits::copy;
        scale(x: &mut [f32], factor: f32) = op::limits::scale;
    }
    entries! {
        [S] [ S: Io<<S as Vector>::E> ]
        arithmetic(turns: usize) -> u64 = op::limits::arithmetic;
    }
}

macro_rules! kernel {
    ($name:literal, $requires:expr, $isa:ident) => {
        Kernel {
            name: $name,
            requires: &$requires,
            detect: isa::$isa::is_available,
            ops: ByType {
                f32: kernel!(@ops isa::$isa::F32, isa::$isa::F32, f32),
                f64: kernel!(@ops isa::$isa::F64, isa::$isa::F64, f64),
                f16: kernel!(@ops isa::$isa::F32, Short<isa::$isa::F32>, f16),
                bf16: kernel!(@ops isa::$isa::F32, Short<isa::$isa::F32>, bf16),
            },
            attention: attention!(
                generic::attend, isa::$isa::F32, Short<isa::$isa::F32>, isa::$isa::F64
            ),
            tiles: TileOps {
                f32: generic::tile::<isa::$isa::F32, f32>,
                f16: generic::tile::<isa::$isa::F32, f16>,
                bf16: generic::tile::<isa::$isa::F32, bf16>,
            },
            scan: generic::scan::<isa::$isa::F32>,
            logs: generic::logs::<isa::$isa::F32>,
            noise: generic::noise::<isa::$isa::F32>,
            limits: Limits {
                read: generic::read::<isa::$isa::F32>,
                copy: generic::copy::<isa::$isa::F32>,
                scale: generic::scale::<isa::$isa::F32>,
                arithmetic_f32: generic::arithmetic::<isa::$isa::F32>,
                arithmetic_f64: generic::arithmetic::<isa::$isa::F64>,
            },
        }
    };
    // `$p` are the vectors for probabilities.
    (@ops $v:ty, $p:ty, $t:ty) => {
        Ops {
            softmax: op::softmax::softmax::<$p, $t>,
            softmax_ragged: op::ragged::softmax::<$p, $t>,
            log_softmax: generic::log_softmax::<$v, $t>,
            logsumexp: generic::logsumexp::<$v, $t>,
            entropy: generic::entropy::<$v, $t>,
            entropy_gradient: generic::entropy_gradient::<$v, $t>,
            kl_divergence: generic::kl_divergence::<$v, $t>,
            map: generic::map::<$v, $t>,
            softmax_columns: generic::softmax_columns::<$p, $t>,
            log_softmax_columns: generic::log_softmax_columns::<$v, $t>,
            pick: generic::pick::<$v, $t>,
            route: generic::route::<$v, $t>,
            loss: generic::loss::<$v, $t>,
            backward: generic::backward::<$v, $t>,
            exps: generic::exps::<$v, $t>,
            hide: generic::hide::<$v, $t>,
            excess: generic::excess::<$v, <$t as Element>::Arithmetic>,
            widen: generic::widen::<$v, $t>,
            pieces: kernel!(@pieces $p, $t),
            log_pieces: kernel!(@pieces $v, $t),
            in_pieces: true,
        }
    };
    (@pieces $v:ty, $t:ty) => {
        PieceOps {
            first: pieces::first::<<$v as Vector>::E, $t>,
            sum: generic::sum_pieces::<$v, $t>,
            merge: pieces::merge::<<$v as Vector>::E>,
            finish: generic::finish_pieces::<$v, $t>,
            logsumexp: generic::logsumexp_of_pieces::<$v, $t>,
            partials: partials::partials::<<$v as Vector>::E, $t>,
            merge_partials: partials::merge::<<$v as Vector>::E>,
        }
    };
}

macro_rules! reference {
    ($e:ty) => {
        Ops {
            softmax: scalar::softmax,
            softmax_ragged: scalar::softmax_ragged,
            log_softmax: scalar::log_softmax,
            logsumexp: scalar::logsumexp,
            entropy: scalar::entropy::entropy,
            entropy_gradient: scalar::entropy::gradient,
            kl_divergence: scalar::kl::divergence,
            map: scalar::decide::map,
            softmax_columns: scalar::columns::<_, false>,
            log_softmax_columns: scalar::columns::<_, true>,
            pick: scalar::decide::pick,
            route: scalar::route::route,
            loss: scalar::loss::loss,
            backward: scalar::loss::backward,
            exps: scalar::exps,
            hide: scalar::hide,
            excess: scalar::excess,
            widen: scalar::widen,
            pieces: reference!(@pieces $e, scalar::sum::<_, true>),
            log_pieces: reference!(@pieces $e, scalar::sum::<_, false>),
            in_pieces: false,
        }
    };
    (@pieces $e:ty, $sum:path) => {
        PieceOps {
            first: pieces::first::<$e, _>,
            sum: $sum,
            merge: pieces::merge::<$e>,
            finish: scalar::finish,
            logsumexp: scalar::piece_logsumexp,
            partials: partials::partials::<$e, _>,
            merge_partials: partials::merge::<$e>,
        }
    };
}

const PLAIN_LIMITS: Limits = Limits {
    read: op::limits::scalar::read,
    copy: op::limits::scalar::copy,
    scale: op::limits::scalar::scale,
    arithmetic_f32: op::limits::scalar::arithmetic,
    arithmetic_f64: op::limits::scalar::arithmetic,
};

/// The reference.
const SCALAR: Kernel = Kernel {
    name: "scalar",
    requires: &[],
    // Plain Rust, which every CPU runs.
    detect: || true,
    ops: ByType {
        f32: reference!(f32),
        f64: reference!(f64),
        f16: reference!(f32),
        bf16: reference!(f32),
    },
    attention: attention!(scalar::attend,),
    tiles: TileOps { f32: scalar::tile, f16: scalar::tile, bf16: scalar::tile },
    scan: scalar::scan,
    logs: scalar::logs,
    noise: scalar::noise,
    limits: PLAIN_LIMITS,
};

/// Every kernel that is compiled for this architecture, the fastest first. `portable` and `scalar`
/// are always available.
pub fn all() -> &'static [Kernel] {
    static ALL: &[Kernel] = &[
        #[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
        kernel!("avx512", ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"], avx512),
        #[cfg(all(target_arch = "x86_64", not(any(softmax_portable, test))))]
        kernel!("avx2", ["avx2", "fma", "f16c"], avx2),
        #[cfg(all(target_arch = "aarch64", not(any(softmax_portable, test))))]
        kernel!("neon", ["neon"], neon),
        #[cfg(not(softmax_emulated))]
        kernel!("portable", [], portable),
        SCALAR,
    ];
    static REFERENCE: &[Kernel] = &[SCALAR];
    // The tests of this crate run no other kernel, and need not compile one.
    if cfg!(test) { REFERENCE } else { ALL }
}
