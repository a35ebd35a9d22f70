//! The one list of kernels: name, needs, detection, entry points.

use crate::attend;
use crate::axis::{self, Columns};
use crate::blocks::{
    self, BlockSum, Extremes, Merged, Piece, PieceOps, PieceOptions, RowShift, Whole,
};
use crate::call::{Call, Masked, Ties};
use crate::decide;
use crate::element::Element;
use crate::fpenv::{Environment, in_default_environment};
use crate::limits::{self, Limits};
use crate::loss;
use crate::pipeline;
use crate::rows::Odd;
use crate::sample;
use crate::scalar;
use crate::scale::Scale;
use crate::scores::Scores;
use crate::shards::{self, MergedPartials, Partial};
use crate::vector::{Io, Vector};
use half::{bf16, f16};

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `exp(a x_i) / sum_j exp(a x_j)`
    Softmax,
    /// `a x_i - ln(sum_j exp(a x_j))`
    LogSoftmax,
    /// `ln(sum_j exp(a x_j))`, one value per row
    LogSumExp,
    /// `1 / (1 + exp(-a x_i))`
    Sigmoid,
    /// `-ln(1 + exp(-a x_i))`
    LogSigmoid,
    /// The largest element of each row, or each of them, has all the mass: softmax at temperature 0.
    Hardmax(Ties),
    /// The logarithm of hardmax with shared ties.
    LogHardmax,
    /// All elements of a row but -inf have the same mass: softmax at infinite temperature.
    Uniform,
    /// The logarithm of that.
    LogUniform,
}

/// The entry points of a kernel for one element type.
#[derive(Debug)]
pub struct Ops<T: Element> {
    softmax: Entry<T>,
    log_softmax: Entry<T>,
    logsumexp: Entry<T>,
    softmax_columns: ColumnsEntry<T>,
    log_softmax_columns: ColumnsEntry<T>,
    pieces: PieceOps<T>,
    /// Whether rows are worth doing in pieces.
    in_pieces: bool,
    pub(crate) decide: decide::Ops<T>,
    pub(crate) loss: loss::Ops<T>,
    pub(crate) sample: sample::Ops<T>,
}

type Entry<T> = fn(&mut Call<T>);
type ColumnsEntry<T> = fn(&mut Columns<T>) -> bool;

type Attention<T, U> = fn(&mut Scores<T, U>) -> bool;

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

/// `$attend` for every pair of types, its generic arguments following `$args`: those for f32 and those for f64.
macro_rules! attention {
    ($attend:path, $($f32:ty),*; $($f64:ty),*) => {{
        use $attend as attend;
        AttentionOps {
            f32: attend::<$($f32,)* f32, f32>,
            f32_f16: attend::<$($f32,)* f32, f16>,
            f32_bf16: attend::<$($f32,)* f32, bf16>,
            f16: attend::<$($f32,)* f16, f16>,
            f16_f32: attend::<$($f32,)* f16, f32>,
            bf16: attend::<$($f32,)* bf16, bf16>,
            bf16_f32: attend::<$($f32,)* bf16, f32>,
            f64: attend::<$($f64,)* f64, f64>,
        }
    }};
}

/// A type that probabilities of scores of type `T` may have: `T` itself, and f32 for f16 and bf16 and the other way round.
pub trait Probs<T: Element>: Element {
    /// A kernel's entry point.
    #[doc(hidden)]
    fn attend(kernel: &Kernel) -> fn(&mut Scores<T, Self>) -> bool;
}

macro_rules! probs {
    ($($t:ty => $u:ty: $field:ident),*) => {
        $(impl Probs<$t> for $u {
            fn attend(kernel: &Kernel) -> fn(&mut Scores<$t, $u>) -> bool {
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

/// A kernel: one instruction set's way to do every operation.
#[derive(Debug)]
pub struct Kernel {
    name: &'static str,
    requires: &'static [&'static str],
    detect: fn() -> bool,
    pub(crate) f32: Ops<f32>,
    pub(crate) f64: Ops<f64>,
    pub(crate) f16: Ops<f16>,
    pub(crate) bf16: Ops<bf16>,
    pub(crate) attention: AttentionOps,
    pub(crate) scan: sample::Scan,
    pub(crate) limits: Limits,
}

impl Kernel {
    /// The name by which it is asked for: `avx512`, `avx2`, `neon`, `portable` or `scalar`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The CPU features it needs, by their names in Rust's `target_feature`.
    pub fn requires(&self) -> &'static [&'static str] {
        self.requires
    }

    /// Whether this CPU can run it.
    pub fn is_available(&self) -> bool {
        (self.detect)()
    }

    /// Does the work of `call`, which is consumed: its views are free again afterwards. In the
    /// default floating-point environment.
    ///
    /// On a CPU that lacks the kernel's instructions the scalar reference does it instead.
    #[inline]
    pub fn run<T: Element>(&'static self, op: Op, mut call: Call<'_, T>) {
        let ops = T::ops(self);
        // What it stands around is called through pointers.
        let _environment = Environment::enter();
        let entry = match op {
            Op::Softmax => ops.softmax,
            Op::LogSoftmax => ops.log_softmax,
            Op::LogSumExp => ops.logsumexp,
            _ => {
                if call.cols != 0 {
                    (ops.decide.call)(&mut call, op);
                }
                return;
            }
        };
        if op == Op::LogSumExp || call.cols != 0 {
            entry(&mut call);
        }
    }

    /// Softmax or log-softmax of columns. Whether there was memory for some of them; if not, nothing is written. (Of other operations nothing
    /// is done.)
    pub fn columns<T: Element>(&'static self, op: Op, mut call: Columns<'_, T>) -> bool {
        let ops = T::ops(self);
        match op {
            Op::Softmax => (ops.softmax_columns)(&mut call),
            Op::LogSoftmax => (ops.log_softmax_columns)(&mut call),
            _ => true,
        }
    }

    /// Does the work of `call`. Whether there was memory for the exponentials of a row; if not, nothing is written.
    pub fn attend<T: Element, U: Probs<T>>(&'static self, mut call: Scores<'_, T, U>) -> bool {
        U::attend(self)(&mut call)
    }

    /// How to do rows in pieces, if this kernel can.
    pub fn pieces<T: Element>(&'static self) -> Option<Pieces<T>> {
        (T::ops(self).in_pieces && self.is_available()).then(|| self.shards())
    }

    /// How to do rows in shards. On a CPU that lacks the kernel's instructions the scalar reference does it instead.
    pub fn shards<T: Element>(&'static self) -> Pieces<T> {
        let able = if self.is_available() { self } else { &all()[all().len() - 1] };
        Pieces { ops: &T::ops(able).pieces }
    }
}

/// How a kernel does rows in pieces: [`Pieces::first`], [`Pieces::sum`] of every piece, [`Pieces::merge`], and
/// [`Pieces::finish`] of every piece.
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

    /// Sums the blocks of a piece, to one of `sums` each.
    pub fn sum(
        &self,
        piece: &mut Piece<T>,
        scale: &Scale,
        shift: &RowShift,
        options: PieceOptions,
        sums: &mut [BlockSum],
    ) -> Extremes {
        // SAFETY: the options are checked.
        unsafe { (self.ops.sum)(piece, scale, shift, options.checked(piece), sums) }
    }

    /// Adds the sums of all the blocks of a row, and judges the shift.
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

    /// Finishes a piece, by the options that it was summed by.
    pub fn finish(
        &self,
        piece: &mut Piece<T>,
        op: Op,
        scale: &Scale,
        whole: &Whole,
        options: PieceOptions,
    ) {
        if !piece.is_read_only() {
            // SAFETY: the options are checked, and there is an output.
            unsafe { (self.ops.finish)(piece, op, scale, whole, options.checked(piece)) };
        }
    }

    /// The log-sum-exp of a row.
    pub fn logsumexp(&self, scale: &Scale, whole: &Whole) -> T {
        let _environment = Environment::enter();
        (self.ops.logsumexp)(scale, whole)
    }

    /// The partials of a shard that starts at a multiple of [`BLOCK`](crate::BLOCK) in its row, one for each block; by `row_max`, the row's
    /// largest element, where [`MergedPartials::Again`] has told it.
    pub fn partials(&self, x: &[T], scale: &Scale, row_max: Option<f64>, partials: &mut [Partial]) {
        let _environment = Environment::enter();
        (self.ops.partials)(self.ops, x, scale, row_max, partials);
    }

    /// Adds the partials of all the blocks of a row.
    pub fn merge_partials(&self, scale: &Scale, partials: &[Partial]) -> MergedPartials {
        let _environment = Environment::enter();
        (self.ops.merge_partials)(scale, partials)
    }

    /// Finishes a shard of a row whose partials were merged, or, for log-sum-exp, gives it.
    pub fn finish_shard(
        &self,
        piece: &mut Piece<T>,
        op: Op,
        scale: &Scale,
        row: &MergedPartials,
        masked: Masked,
    ) -> T {
        let _environment = Environment::enter();
        let odd = match row {
            MergedPartials::Whole(whole) => {
                if op == Op::LogSumExp {
                    return self.logsumexp(scale, whole);
                }
                self.finish(piece, op, scale, whole, PieceOptions::default());
                return T::ZERO;
            }
            // Of a row that is not summed yet there is no result.
            MergedPartials::Again(_) | MergedPartials::Nan => Odd::Nan,
            MergedPartials::PlusInf => Odd::PlusInf,
            MergedPartials::AllMasked => Odd::AllMasked,
        };
        blocks::write_odd(piece, &odd, op, masked)
    }

    /// Writes what becomes of a row for which [`Merged::Odd`] was said, or, for log-sum-exp, gives it.
    pub fn odd(&self, row: &mut Piece<T>, op: Op, masked: Masked) -> T {
        in_default_environment(|| blocks::odd(row, op, masked))
    }
}

/// An instruction set: a value of the type is the proof that this CPU has it.
pub(crate) trait Isa: Copy {
    fn detect() -> Option<Self>;
    /// Runs `f`, which must be inlined, compiled for this instruction set.
    fn vectorize(self, f: impl FnOnce());
}

macro_rules! entry {
    ($op:ident) => {
        pub(super) fn $op<I, S, T>(call: &mut Call<T>)
        where
            I: Isa,
            S: From<I> + Io<T> + Io<<S as Vector>::E>,
            T: Element,
        {
            let Some(isa) = I::detect() else {
                return scalar::$op(call);
            };
            isa.vectorize(
                #[inline(always)]
                || {
                    // SAFETY: a Call is made only from views that were checked, so
                    // its pointers are valid as its fields say.
                    unsafe { pipeline::$op(S::from(isa), call) }
                },
            );
        }
    };
}

/// The entry points that run the generic algorithms on an instruction set.
mod generic {
    use super::*;
    entry!(softmax);
    entry!(log_softmax);
    entry!(logsumexp);

    pub(super) fn columns<I, S, T, const LOG: bool>(call: &mut Columns<T>) -> bool
    where
        I: Isa,
        S: From<I> + Io<T> + Io<<S as Vector>::E>,
        T: Element,
    {
        let Some(isa) = I::detect() else {
            return scalar::columns::<T, LOG>(call);
        };
        let mut done = false;
        isa.vectorize(
            #[inline(always)]
            || {
                // SAFETY: Columns are made only of slices whose lengths were checked, so their pointers are valid as their fields say.
                done = unsafe { axis::columns::<S, T, LOG>(S::from(isa), call) }
            },
        );
        done
    }

    pub(super) fn attend<I, S, T, U>(call: &mut Scores<T, U>) -> bool
    where
        I: Isa,
        S: From<I> + attend::Masks + Io<T> + Io<U>,
        S::Wide: Io<<S as Vector>::E>,
        T: Element,
        U: Element,
    {
        let Some(isa) = I::detect() else {
            return scalar::attend(call);
        };
        let mut done = false;
        isa.vectorize(
            #[inline(always)]
            || {
                // SAFETY: Scores are made only from views and options that were checked, so their pointers are valid as their
                // fields say.
                done = unsafe { attend::attend(S::from(isa), call) }
            },
        );
        done
    }

    // `Kernel::pieces` gives these out only where the instruction set is there.

    /// # Safety
    /// The options are [`PieceOptions::checked`].
    pub(super) unsafe fn sum<I, S, T>(
        piece: &mut Piece<T>,
        scale: &Scale,
        shift: &RowShift,
        options: PieceOptions,
        sums: &mut [BlockSum],
    ) -> Extremes
    where
        I: Isa,
        S: From<I> + Io<T> + Io<<S as Vector>::E>,
        T: Element,
    {
        let mut extremes = Extremes::NONE;
        if let Some(isa) = I::detect() {
            isa.vectorize(
                #[inline(always)]
                || {
                    // SAFETY: a Piece is made only of slices; the options as this function's.
                    extremes =
                        unsafe { blocks::sum(S::from(isa), piece, scale, shift, options, sums) };
                },
            );
        }
        extremes
    }

    /// # Safety
    /// The options are [`PieceOptions::checked`], and the piece has an output.
    pub(super) unsafe fn finish<I, S, T>(
        piece: &mut Piece<T>,
        op: Op,
        scale: &Scale,
        whole: &Whole,
        options: PieceOptions,
    ) where
        I: Isa,
        S: From<I> + Io<T> + Io<<S as Vector>::E>,
        T: Element,
    {
        if let Some(isa) = I::detect() {
            isa.vectorize(
                #[inline(always)]
                || {
                    // SAFETY: as above.
                    unsafe { blocks::finish(S::from(isa), piece, op, scale, whole, options) };
                },
            );
        }
    }

    pub(super) fn piece_logsumexp<I, S, T>(scale: &Scale, whole: &Whole) -> T
    where
        I: Isa,
        S: From<I> + Vector,
        T: Element,
    {
        let mut value = T::NAN;
        if let Some(isa) = I::detect() {
            isa.vectorize(
                #[inline(always)]
                || value = blocks::logsumexp(S::from(isa), scale, whole),
            );
        }
        value
    }
}

macro_rules! kernel {
    ($name:literal, $requires:expr, $isa:ty, $f32:ty, $f64:ty) => {
        Kernel {
            name: $name,
            requires: &$requires,
            detect: || <$isa as Isa>::detect().is_some(),
            f32: kernel!(@ops $isa, $f32, f32),
            f64: kernel!(@ops $isa, $f64, f64),
            f16: kernel!(@ops $isa, $f32, f16),
            bf16: kernel!(@ops $isa, $f32, bf16),
            attention: attention!(generic::attend, $isa, $f32; $isa, $f64),
            scan: sample::scan_of::<$isa, $f32>(),
            limits: limits::limits_of::<$isa, $f32, $f64>(),
        }
    };
    (@ops $isa:ty, $v:ty, $t:ty) => {
        Ops {
            softmax: generic::softmax::<$isa, $v, $t>,
            log_softmax: generic::log_softmax::<$isa, $v, $t>,
            logsumexp: generic::logsumexp::<$isa, $v, $t>,
            softmax_columns: generic::columns::<$isa, $v, $t, false>,
            log_softmax_columns: generic::columns::<$isa, $v, $t, true>,
            pieces: PieceOps {
                first: blocks::first::<<$v as Vector>::E, $t>,
                sum: generic::sum::<$isa, $v, $t>,
                merge: blocks::merge::<<$v as Vector>::E>,
                finish: generic::finish::<$isa, $v, $t>,
                logsumexp: generic::piece_logsumexp::<$isa, $v, $t>,
                partials: shards::partials::<<$v as Vector>::E, $t>,
                merge_partials: shards::merge::<<$v as Vector>::E>,
            },
            in_pieces: true,
            decide: decide::ops::<$isa, $v, $t>(),
            loss: loss::ops::<$isa, $v, $t>(),
            sample: sample::ops::<$isa, $v, $t>(),
        }
    };
}

macro_rules! reference {
    ($e:ty) => {
        Ops {
            softmax: scalar::softmax,
            log_softmax: scalar::log_softmax,
            logsumexp: scalar::logsumexp,
            softmax_columns: scalar::columns::<_, false>,
            log_softmax_columns: scalar::columns::<_, true>,
            pieces: PieceOps {
                first: blocks::first::<$e, _>,
                sum: scalar::sum,
                merge: blocks::merge::<$e>,
                finish: scalar::finish,
                logsumexp: scalar::piece_logsumexp,
                partials: shards::partials::<$e, _>,
                merge_partials: shards::merge::<$e>,
            },
            in_pieces: false,
            decide: decide::reference(),
            loss: loss::reference(),
            sample: sample::reference(),
        }
    };
}

/// Every kernel compiled for this architecture, the fastest first. `portable` and
/// `scalar` are always available.
pub fn all() -> &'static [Kernel] {
    static ALL: &[Kernel] = &[
        #[cfg(all(target_arch = "x86_64", not(softmax_portable)))]
        kernel!(
            "avx512",
            ["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
            crate::avx512::Avx512,
            crate::avx512::F32,
            crate::avx512::F64
        ),
        #[cfg(all(target_arch = "x86_64", not(softmax_portable)))]
        kernel!(
            "avx2",
            ["avx2", "fma", "f16c"],
            crate::avx2::Avx2,
            crate::avx2::F32,
            crate::avx2::F64
        ),
        #[cfg(all(target_arch = "aarch64", not(softmax_portable)))]
        kernel!("neon", ["neon"], crate::neon::Neon, crate::neon::F32, crate::neon::F64),
        kernel!(
            "portable",
            [],
            crate::portable::Portable,
            crate::portable::F32,
            crate::portable::F64
        ),
        Kernel {
            name: "scalar",
            requires: &[],
            detect: || true,
            f32: reference!(f32),
            f64: reference!(f64),
            f16: reference!(f32),
            bf16: reference!(f32),
            attention: attention!(scalar::attend, ; ),
            scan: scalar::scan,
            limits: limits::reference(),
        },
    ];
    ALL
}
