//! Macros that write a CPU's operations from what each does to one register.
//!
//! Registers are written out one by one. Closures over them, as in `std::array::from_fn`, may stay
//! out of line and so be compiled without the CPU's instructions: a loop then loses most of its
//! speed.

// Builds for other CPUs do not use all macros.
#![allow(unused_macros, unused_imports)]

/// An array with the value of an expression for each register, the `k`th.
macro_rules! each {
    (1, |$k:ident| $op:expr) => {
        [$crate::isa::registers::each!(@ 0, $k, $op)]
    };
    (2, |$k:ident| $op:expr) => {
        [
            $crate::isa::registers::each!(@ 0, $k, $op),
            $crate::isa::registers::each!(@ 1, $k, $op),
        ]
    };
    (4, |$k:ident| $op:expr) => {
        [
            $crate::isa::registers::each!(@ 0, $k, $op),
            $crate::isa::registers::each!(@ 1, $k, $op),
            $crate::isa::registers::each!(@ 2, $k, $op),
            $crate::isa::registers::each!(@ 3, $k, $op),
        ]
    };
    (@ $number:literal, $k:ident, $op:expr) => {{
        let $k: usize = $number;
        $op
    }};
}

/// Methods that do the same to each register of their vectors; `[table]` is passed whole.
macro_rules! elementwise {
    ($n:tt, $s:ident: splat($x:ident) = $splat:expr;
        $($name:ident $([$table:ident])? ($($a:ident),+) = $op:expr;)+
    ) => {
        #[inline(always)]
        #[allow(unused_variables)] // the token, where operators do it
        fn splat(self, $x: Self::E) -> Self::V {
            let $s = self;
            [$splat; $n]
        }
    $(
        #[inline(always)]
        #[allow(unused_variables)] // as above
        fn $name(self $(, $table: Self::Table)?, $($a: Self::V),+) -> Self::V {
            let $s = self;
            $crate::isa::registers::each!($n, |k| {
                $(let $a = $a[k];)+
                $op
            })
        }
    )+};
}

/// Methods that reduce a vector to one number.
macro_rules! one_lane {
    ($s:ident: $($name:ident($a:ident) = $op:expr;)+) => {$(
        #[inline(always)]
        #[allow(unused_variables)] // as above
        fn $name(self, $a: Self::V) -> Self::E {
            let $s = self;
            $op
        }
    )+};
}

/// Loads and stores of a type, from what is done to each of `$n` registers of `$lanes` elements.
/// Parts go through a buffer where the CPU has no masks.
macro_rules! memory {
    ($vector:ty, $n:tt of $lanes:literal $t:ty, $s:ident:
        $(load_part $load_part:tt = $by_mask:expr; store_part $store_part:tt = $under_mask:expr;)?
        load($p:ident) = $load:expr; $($store:ident($q:ident, $v:ident) = $op:expr;)+
    ) => {
        // SAFETY: all registers together are LANES elements; parts are as their macros say.
        unsafe impl Io<$t> for $vector {
            #[inline(always)]
            unsafe fn load(self, p: *const $t) -> Self::V {
                let $s = self;
                // SAFETY: the caller guarantees LANES elements; the token proves the instructions.
                unsafe {
                    $crate::isa::registers::each!($n, |k| {
                        let $p = p.add(k * $lanes);
                        $load
                    })
                }
            }
            $(
                #[inline(always)]
                #[allow(unused_variables)] // as above
                unsafe fn $store(self, p: *mut $t, v: Self::V) {
                    let $s = self;
                    // SAFETY: as above; if `p` is aligned, so is every register's place.
                    unsafe {
                        $crate::isa::registers::each!($n, |k| {
                            let ($q, $v) = (p.add(k * $lanes), v[k]);
                            $op
                        })
                    };
                }
            )+
            $crate::isa::registers::part!($t, $n * $lanes $(, $s:
                load_part $load_part = $by_mask; store_part $store_part = $under_mask;
            )?);
        }
    };
}

/// The tokens of a CPU, which hold the proof of its instruction set.
macro_rules! tokens {
    ($proof:ty $(, $found:expr)?) => {
        /// Whether this CPU has the instruction set.
        pub(crate) fn is_available() -> bool {
            let found = <$proof>::try_new().is_some();
            $(if found {
                $found;
            })?
            found
        }

        /// f32 arithmetic: 16 lanes.
        #[derive(Clone, Copy)]
        pub(crate) struct F32(pub(super) $proof);

        /// f64 arithmetic: 8 lanes.
        #[derive(Clone, Copy)]
        pub(crate) struct F64($proof);
    };
}

/// The methods of every token of [`tokens`].
macro_rules! token {
    ($proof:ty) => {
        type Wide = F64;
        #[inline(always)]
        unsafe fn assume() -> Self {
            // SAFETY: as this function's.
            Self(unsafe { <$proof>::new_unchecked() })
        }
        #[inline(always)]
        fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
            self.0.vectorize(f)
        }
        #[inline(always)]
        fn wide(self) -> F64 {
            F64(self.0)
        }
    };
}

/// Operations of x86-64 that do not depend on the width of vectors.
macro_rules! x86_caches {
    () => {
        const STREAMS: bool = true;
        #[inline(always)]
        fn prefetch<T>(self, p: *const T) {
            // SAFETY: a prefetch accesses nothing, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
        }
        #[inline(always)]
        fn prefetch_far<T>(self, p: *const T) {
            // SAFETY: as above.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) };
        }
        #[inline(always)]
        fn fence(self) {
            // SAFETY: every x86-64 CPU has SSE.
            unsafe { _mm_sfence() };
        }
    };
}

/// Items that vectors of f32 have in common on every CPU: sums are in f64.
macro_rules! f32_alike {
    () => {
        type E = f32;
        type Acc = [<F64 as Vector>::V; 2];
        type Total = Self::Acc;
        const LANES: usize = 16;
        #[inline(always)]
        fn acc_zero(self) -> Self::Acc {
            [self.wide().splat(0.0); 2]
        }
        #[inline(always)]
        fn acc_add(self, acc: Self::Acc, v: Self::V) -> Self::Acc {
            self.total_plus(acc, self.acc_of(v))
        }
        #[inline(always)]
        fn total(self, acc: Self::Acc) -> Self::Total {
            acc
        }
        #[inline(always)]
        fn total_plus(self, a: Self::Total, b: Self::Total) -> Self::Total {
            [self.wide().add(a[0], b[0]), self.wide().add(a[1], b[1])]
        }
        #[inline(always)]
        fn log_softmax(self, x: Self::V, shift: &$crate::num::scale::LogShift) -> Self::V {
            let [a, b] = self.widen(x);
            self.narrow([
                $crate::isa::vector::log_softmax_f32(self.wide(), a, shift),
                $crate::isa::vector::log_softmax_f32(self.wide(), b, shift),
            ])
        }
    };
}

/// Operations on running sums of f32 whose lanes are in order.
macro_rules! sums_in_order {
    () => {
        #[inline(always)]
        fn acc_of(self, v: Self::V) -> Self::Acc {
            self.widen(v)
        }
        #[inline(always)]
        unsafe fn total_inverses(self, sum: Self::Total, hi: *mut f32, lo: *mut f32) -> bool {
            // SAFETY: as this function's.
            unsafe { $crate::isa::vector::inverses_f32(self.wide(), sum, hi, lo) }
        }
    };
}

/// Operations on the sums of eight rows of f32, side by side in one vector of f64.
macro_rules! sums_side_by_side {
    () => {
        type Sums = <F64 as Vector>::V;
        #[inline(always)]
        fn reciprocals(
            self,
            sums: Self::Sums,
            hi: &mut [f32; $crate::num::exp2::ROWS_AT_ONCE],
            lo: &mut [f32; $crate::num::exp2::ROWS_AT_ONCE],
        ) {
            let (hi, lo) = (hi.as_mut_ptr(), lo.as_mut_ptr());
            // SAFETY: there is room for eight elements, as many as a vector has.
            unsafe { $crate::isa::vector::inverse_f32(self.wide(), sums, hi, lo) }
        }
    };
}

/// Items that vectors of f64 have in common on every CPU: running sums are pairs. `$lanes` turns a
/// vector into an array.
macro_rules! f64_alike {
    ($lanes:path) => {
        type E = f64;
        type Acc = (Self::V, Self::V);
        type Total = Self::Acc;
        const LANES: usize = 8;
        #[inline(always)]
        fn acc_zero(self) -> Self::Acc {
            (self.splat(0.0), self.splat(0.0))
        }
        #[inline(always)]
        fn acc_add(self, acc: Self::Acc, v: Self::V) -> Self::Acc {
            $crate::isa::vector::two_sum_lanes(self, acc, v)
        }
        #[inline(always)]
        fn total(self, acc: Self::Acc) -> Self::Total {
            acc
        }
        #[inline(always)]
        fn total_plus(self, a: Self::Total, b: Self::Total) -> Self::Total {
            $crate::isa::vector::plus_lanes(self, a, b)
        }
        #[inline(always)]
        unsafe fn total_inverses(self, sum: Self::Total, hi: *mut f64, lo: *mut f64) -> bool {
            // SAFETY: as this function's.
            unsafe { $crate::isa::vector::inverses_f64(self, sum, hi, lo) }
        }
        #[inline(always)]
        fn acc_fold(self, (hi, lo): Self::Acc) -> $crate::num::exp2::Sum {
            $crate::num::exp2::fold_f64($lanes(hi), $lanes(lo))
        }
        $crate::isa::registers::sums_one_by_one!();
        #[inline(always)]
        fn widen(self, v: Self::V) -> [Self::V; 2] {
            [v; 2]
        }
        #[inline(always)]
        fn narrow(self, v: [Self::V; 2]) -> Self::V {
            v[0]
        }
        #[inline(always)]
        fn log_softmax(self, x: Self::V, shift: &$crate::num::scale::LogShift) -> Self::V {
            $crate::isa::vector::log_softmax_f64(self, x, shift)
        }
    };
}

/// Operations on the sums of several rows, one after another.
macro_rules! sums_one_by_one {
    () => {
        type Sums = [$crate::num::exp2::Sum; $crate::num::exp2::ROWS_AT_ONCE];
        #[inline(always)]
        fn fold_rows(self, acc: &[Self::Total; $crate::num::exp2::ROWS_AT_ONCE]) -> Self::Sums {
            let mut sums = [$crate::num::exp2::Sum::ZERO; $crate::num::exp2::ROWS_AT_ONCE];
            for (sum, &acc) in sums.iter_mut().zip(acc) {
                *sum = self.acc_fold(acc);
            }
            sums
        }
        #[inline(always)]
        fn are_positive(self, sums: Self::Sums) -> bool {
            let mut all = true;
            for sum in sums {
                all &= sum.hi > 0.0;
            }
            all
        }
        #[inline(always)]
        fn reciprocals(
            self,
            sums: Self::Sums,
            hi: &mut [Self::E; $crate::num::exp2::ROWS_AT_ONCE],
            lo: &mut [Self::E; $crate::num::exp2::ROWS_AT_ONCE],
        ) {
            for k in 0..$crate::num::exp2::ROWS_AT_ONCE {
                (hi[k], lo[k]) = <Self::E as $crate::num::exp2::Contract>::reciprocal(sums[k]);
            }
        }
    };
}

/// Loads and stores of narrower types as f64, element by element: rare, for masks and caps.
macro_rules! narrow_io {
    ($s:ty, $lanes:literal, $($t:ty),*) => {$(
        // SAFETY: every access below is to elements that the caller guarantees, or to arrays of
        // LANES elements.
        unsafe impl Io<$t> for $s {
            #[inline(always)]
            unsafe fn load(self, p: *const $t) -> Self::V {
                // SAFETY: the caller guarantees LANES elements.
                let lanes = $crate::num::element::widened(unsafe { *p.cast::<[$t; $lanes]>() });
                // SAFETY: the array has LANES elements.
                unsafe { self.load(lanes.as_ptr()) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t, v: Self::V) {
                let mut lanes = [0f64; $lanes];
                // SAFETY: the array has room for LANES elements.
                unsafe { self.store(lanes.as_mut_ptr(), v) };
                for k in 0..$lanes {
                    // SAFETY: the caller guarantees LANES elements.
                    unsafe {
                        *p.add(k) = <$t as $crate::num::element::Element>::from_f64(lanes[k]);
                    }
                }
            }
            $crate::isa::registers::part!($t, $lanes);
        }
    )*};
}

/// `load_part` and `store_part`: with a mask of the first lanes of one register, or through a full
/// vector in a buffer.
macro_rules! part {
    ($t:ty, $lanes:expr, $s:ident:
        load_part($p:ident, $mask:ident, $fill:ident) = $load:expr;
        store_part($q:ident, $of:ident, $v:ident) = $store:expr;
    ) => {
        #[inline(always)]
        unsafe fn load_part(self, $p: *const $t, n: usize, fill: Self::E) -> Self::V {
            debug_assert!(n < $lanes);
            let $s = self;
            let ($mask, [$fill]) = ((1u16 << n) - 1, $s.splat(fill));
            // SAFETY: only the first n elements are read, which the caller guarantees.
            [unsafe { $load }]
        }
        #[inline(always)]
        unsafe fn store_part(self, $q: *mut $t, n: usize, [$v]: Self::V) {
            debug_assert!(n < $lanes);
            let $s = self;
            let $of = (1u16 << n) - 1;
            // SAFETY: only the first n elements are written, which the caller guarantees.
            unsafe { $store }
        }
    };
    ($t:ty, $lanes:expr) => {
        #[inline(always)]
        unsafe fn load_part(
            self,
            p: *const $t,
            n: usize,
            fill: <Self as $crate::isa::vector::Vector>::E,
        ) -> Self::V {
            let mut buffer = [<$t as $crate::num::element::Element>::from_f64(
                $crate::num::exp2::Contract::widen(fill),
            ); $lanes];
            // SAFETY: the caller guarantees n elements, and n is less than the buffer's length.
            unsafe { std::ptr::copy_nonoverlapping(p, buffer.as_mut_ptr(), n) };
            // SAFETY: the buffer has LANES elements.
            unsafe { <Self as $crate::isa::vector::Io<$t>>::load(self, buffer.as_ptr()) }
        }
        #[inline(always)]
        unsafe fn store_part(self, p: *mut $t, n: usize, v: Self::V) {
            let mut buffer = [<$t as $crate::num::element::Element>::ZERO; $lanes];
            // SAFETY: the buffer has LANES elements.
            unsafe { <Self as $crate::isa::vector::Io<$t>>::store(self, buffer.as_mut_ptr(), v) };
            // SAFETY: the caller guarantees n elements, and n is less than the buffer's length.
            unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), p, n) };
        }
    };
}

pub(crate) use {each, elementwise, f32_alike, f64_alike, memory, narrow_io, one_lane, part};
pub(crate) use {sums_in_order, sums_one_by_one, sums_side_by_side, token, tokens, x86_caches};
