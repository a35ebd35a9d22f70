//! The options of all calls, and how calls are made with them.

use std::ffi::{CStr, c_char, c_void};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use softmax::{
    Attention, Backward, Caches, CrossEntropy, Element, Error, Exec, Executor, Hardmax, LogProbs,
    Masked, Op, Router, Shape, Shards, Sigmoid, Softmax, Threads, Ties, TopK, internal,
};

use crate::raw::{Descriptor, Region, disjoint, read, read_or, slice_mut};
use crate::status::{Failure, Reason, softmax_status};

/// Rows of nothing but -inf become 0 instead of NaN.
pub const SOFTMAX_MASKED_ZERO: u32 = 1;
/// `threads` threads work, however small the call is.
pub const SOFTMAX_THREADS_EXACT: u32 = 2;
/// `cache_core` and `cache_last` are used.
pub const SOFTMAX_CACHES: u32 = 4;

/// The caller's own threads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_parallel {
    /// `sizeof(softmax_parallel)`.
    pub size: usize,
    /// Passed to `parallel_for`.
    pub context: *mut c_void,
    /// Number of threads.
    pub threads: usize,
    /// Calls `body(argument, 0)` to `body(argument, count - 1)`, in any order and on any threads,
    /// mostly at the same time, and returns when all of these calls have returned. `count` is at
    /// most `threads`. If it leaves out calls, the calling thread does their work; it must not make
    /// any later. It must not throw.
    pub parallel_for: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            count: usize,
            body: Option<unsafe extern "C" fn(argument: *mut c_void, index: usize)>,
            argument: *mut c_void,
        ),
    >,
}

// SAFETY: numbers and pointers; a null function is a value.
unsafe impl Descriptor for softmax_parallel {
    const NAME: &'static str = "softmax_parallel";
}

/// The options of all calls. `softmax_options_default` has those of a call with a null pointer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct softmax_options {
    /// `sizeof(softmax_options)`.
    pub size: usize,
    /// The factor of inputs, within 2^-60 to 2^60; exact, at no cost. 1 by default. Its negative
    /// (softmin) is allowed, too, and costs a copy of the rows.
    pub scale: f64,
    /// The divisor of inputs; 1 by default. One of scale and temperature must be 1. Softmax and
    /// log-softmax of rows also take 0 and infinity.
    pub temperature: f64,
    /// Any of `SOFTMAX_MASKED_ZERO`, `SOFTMAX_THREADS_EXACT` and `SOFTMAX_CACHES`.
    pub flags: u32,
    /// The name of a kernel; null for the fastest that this CPU can run.
    pub kernel: *const c_char,
    /// Number of threads that may work: 0 for as many as pay, 1 for the calling thread alone.
    pub threads: usize,
    /// The caller's threads; null for the library's pool, which is made when a call first needs it.
    /// In a child of a process that has the pool, and where no thread can be made, the calling
    /// thread works alone.
    pub parallel: *const softmax_parallel,
    /// Memory for intermediate results, as large as the function `softmax_scratch_size` or one of
    /// its relatives says, with any alignment. Null for the threads' own memory, which they keep
    /// for the next call, until `softmax_release_scratch`.
    pub scratch: *mut c_void,
    /// Bytes of `scratch`.
    pub scratch_size: usize,
    /// Bytes of the largest cache that a core has to itself. Speed depends on it, results do not.
    pub cache_core: usize,
    /// Bytes of output that a call may expect to stay in a cache.
    pub cache_last: usize,
    /// The place of a message, with a 0 at its end, if the call fails: it names the sizes or values
    /// that are wrong. Null for none.
    pub message: *mut c_char,
    /// Bytes of `message`. Longer messages are cut.
    pub message_size: usize,
}

// SAFETY: numbers and pointers.
unsafe impl Descriptor for softmax_options {
    const NAME: &'static str = "softmax_options";
}

const DEFAULT: softmax_options = softmax_options {
    size: size_of::<softmax_options>(),
    scale: 1.0,
    temperature: 1.0,
    flags: 0,
    kernel: std::ptr::null(),
    threads: 0,
    parallel: std::ptr::null(),
    scratch: std::ptr::null_mut(),
    scratch_size: 0,
    cache_core: 0,
    cache_last: 0,
    message: std::ptr::null_mut(),
    message_size: 0,
};

/// The threads behind a [`softmax_parallel`].
struct CallerThreads(softmax_parallel);

// SAFETY: the caller guarantees that its function may be called; only the thread of the call calls
// it.
unsafe impl Sync for CallerThreads {}

/// The body that the caller's threads call.
struct Body<'a> {
    body: &'a (dyn Fn(usize) + Sync),
    panicked: AtomicBool,
}

/// # Safety
/// `argument` is the [`Body`] of a call that has not returned.
unsafe extern "C" fn run(argument: *mut c_void, index: usize) {
    // SAFETY: as this function's.
    let body = unsafe { &*argument.cast::<Body>() };
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (body.body)(index))) {
        std::mem::forget(panic);
        body.panicked.store(true, Ordering::Relaxed);
    }
}

impl Executor for CallerThreads {
    fn threads(&self) -> usize {
        self.0.threads
    }

    fn parallel_for(&self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        let Some(parallel_for) = self.0.parallel_for else { return };
        let body = Body { body, panicked: AtomicBool::new(false) };
        let argument = std::ptr::from_ref(&body).cast_mut().cast();
        // SAFETY: the caller's function may be called with its context, and makes no call of the
        // body after it has returned.
        unsafe { parallel_for(self.0.context, count, Some(run), argument) };
        assert!(!body.panicked.load(Ordering::Relaxed), "a thread has panicked");
    }
}

/// The options that all operations have in common.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub softmax: Softmax<'a>,
    pub exec: Exec<'a>,
    scale: f64,
    temperature: f64,
    masked: Masked,
}

/// Softmax with the scale or temperature of the options, one of which is 1.
const fn scaled_softmax<'a>(scale: f64, temperature: f64) -> Softmax<'a> {
    let softmax = Softmax::new();
    if is_one(temperature) { softmax.scale(scale) } else { softmax.temperature(temperature) }
}

/// As [`scaled_softmax`], of any operation.
macro_rules! scaled {
    ($given:expr, $operation:expr) => {{
        let given = $given;
        if is_one(given.temperature) {
            $operation.scale(given.scale)
        } else {
            $operation.temperature(given.temperature)
        }
    }};
}

impl<'a> Given<'a> {
    #[inline(always)]
    const fn new(exec: Exec<'a>, scale: f64, temperature: f64, masked: Masked) -> Self {
        let softmax = scaled_softmax(scale, temperature).masked(masked).exec(exec);
        Self { softmax, exec, scale, temperature, masked }
    }

    pub(crate) fn sigmoid(&self) -> Sigmoid<'a> {
        scaled!(self, Sigmoid::new()).exec(self.exec)
    }

    pub(crate) fn hardmax(&self, ties: Ties) -> Hardmax<'a> {
        Hardmax::new().ties(ties).masked(self.masked).exec(self.exec)
    }

    pub(crate) fn top_k(&self, k: usize) -> TopK<'a> {
        scaled!(self, TopK::new(k)).masked(self.masked).exec(self.exec)
    }

    pub(crate) fn router(&self, k: usize) -> Router<'a> {
        Router::new(k).masked(self.masked).exec(self.exec)
    }

    pub(crate) fn log_probs(&self) -> LogProbs<'a> {
        scaled!(self, LogProbs::new()).masked(self.masked).exec(self.exec)
    }

    pub(crate) fn backward(&self) -> Backward<'a> {
        scaled!(self, Backward::new()).exec(self.exec)
    }

    pub(crate) fn attention(&self, heads: usize, queries: usize) -> Attention<'a> {
        scaled!(self, Attention::new(heads, queries)).masked(self.masked).exec(self.exec)
    }

    pub(crate) fn cross_entropy(&self) -> CrossEntropy<'a> {
        scaled!(self, CrossEntropy::new()).exec(self.exec)
    }

    pub(crate) fn shards(&self) -> Shards<'a> {
        scaled!(self, Shards::new()).masked(self.masked).exec(self.exec)
    }

    /// Bytes of scratch memory for an operation on rows.
    pub(crate) fn scratch_size<T: Element>(&self, op: Op, shape: Shape) -> Result<usize, Error> {
        internal::scratch_size::<T>(&self.softmax, self.at_temperature(op), shape)
    }

    /// The same along an axis.
    pub(crate) fn axis_scratch_size<T: Element>(
        &self,
        shape: &[usize],
        axis: isize,
    ) -> Result<usize, Error> {
        internal::axis_scratch_size::<T>(&self.softmax, shape, axis)
    }

    /// Whether the temperature is 0 or infinite.
    pub(crate) fn is_limit(&self) -> bool {
        let bits = self.temperature.to_bits();
        bits << 1 == 0 || bits == f64::INFINITY.to_bits()
    }

    /// The operation at the temperature, if it has a meaning there.
    pub(crate) fn at_temperature(&self, op: Op) -> Op {
        match op {
            Op::Softmax | Op::LogSoftmax | Op::Hardmax(_) if self.is_limit() => {
                Op::Hardmax(Ties::Share)
            }
            op => op,
        }
    }
}

/// The options of a call, prepared.
pub(crate) struct Call<'a> {
    pub given: &'a Given<'a>,
    /// The start and the bytes of scratch memory.
    scratch: Option<(*mut u8, usize)>,
}

impl Call<'_> {
    /// Prepares a call with these options. The usual ones are prepared in advance.
    ///
    /// # Safety
    /// The options are null or valid.
    #[inline(always)]
    pub(crate) unsafe fn with(
        options: *const softmax_options,
        f: &impl Fn(&Call) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        static AUTO: Given<'static> = Given::new(Exec::new(), 1.0, 1.0, Masked::Nan);
        static SERIAL: Given<'static> =
            Given::new(Exec::new().threads(Threads::Serial), 1.0, 1.0, Masked::Nan);
        if options.is_null() {
            return f(&Call { given: &AUTO, scratch: None });
        }
        // SAFETY: as this function's.
        let options = unsafe { read(options) }?;
        let plain = is_one(options.scale) && is_one(options.temperature) && options.flags == 0;
        let own = options.kernel.is_null() && options.parallel.is_null();
        if plain && own && options.threads <= 1 && options.scratch.is_null() {
            let given = if options.threads == 0 { &AUTO } else { &SERIAL };
            return f(&Call { given, scratch: None });
        }
        // SAFETY: as this function's.
        unsafe { Call::with_all(options, f) }
    }

    /// # Safety
    /// The options are valid.
    #[inline(never)]
    unsafe fn with_all(
        options: &softmax_options,
        f: &impl Fn(&Call) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let (scale, temperature) = (options.scale, options.temperature);
        if !is_one(scale) && !is_one(temperature) {
            return Err(Reason::Both(scale, temperature).into());
        }
        check_flags(options)?;
        let caches = (options.flags & SOFTMAX_CACHES != 0)
            .then(|| Caches::new(options.cache_core, options.cache_last));
        let kernel = if options.kernel.is_null() {
            None
        } else {
            // SAFETY: a string.
            let name = unsafe { CStr::from_ptr(options.kernel) };
            let name = name.to_str().map_err(|_| Reason::Name(name.to_bytes().to_vec()))?;
            Some(softmax::kernel(name)?)
        };
        let exact = options.flags & SOFTMAX_THREADS_EXACT != 0;
        let threads = match (NonZeroUsize::new(options.threads), exact) {
            (None, _) => Threads::Auto,
            (Some(NonZeroUsize::MIN), _) => Threads::Serial,
            (Some(n), false) => Threads::AtMost(n),
            (Some(n), true) => Threads::Exactly(n),
        };
        let scratch = (!options.scratch.is_null())
            .then_some((options.scratch.cast::<u8>(), options.scratch_size));
        let zero = options.flags & SOFTMAX_MASKED_ZERO != 0;
        let masked = if zero { Masked::Zero } else { Masked::Nan };
        if !(is_one(scale) && is_one(temperature)) {
            internal::check(&scaled_softmax(scale, temperature))?;
        }
        // Made at one go, and where it stays: copies of what was just stored in parts cost 5 ns.
        if options.parallel.is_null() {
            let exec = internal::exec(kernel, threads, None, caches);
            let given = Given::new(exec, scale, temperature, masked);
            return f(&Call { given: &given, scratch });
        }
        // SAFETY: not null, and valid.
        let parallel = unsafe { read(options.parallel) }?;
        if parallel.parallel_for.is_none() {
            return Err(Reason::Null("parallel_for").into());
        }
        let callers = CallerThreads(*parallel);
        let exec = internal::exec(kernel, threads, Some(&callers), caches);
        let given = Given::new(exec, scale, temperature, masked);
        f(&Call { given: &given, scratch })
    }

    /// Whether the caller lends scratch memory.
    pub(crate) fn has_scratch(&self) -> bool {
        self.scratch.is_some()
    }

    /// Refuses outputs that overlap other memory of the call.
    pub(crate) fn disjoint(&self, written: &[Region], read: &[Region]) -> Result<(), Failure> {
        disjoint(written, read)?;
        let Some((p, size)) = self.scratch else { return Ok(()) };
        let scratch = [Region::of("scratch", p, size)?];
        disjoint(&scratch, written)?;
        disjoint(&scratch, read)
    }

    /// Does the work in the caller's scratch memory, if there is any and it is large enough.
    #[inline(always)]
    pub(crate) fn run<E>(
        &self,
        needed: impl FnOnce() -> Result<usize, Error>,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), Failure>
    where
        Failure: From<E>,
    {
        if self.scratch.is_none() { Ok(work()?) } else { self.run_in_scratch(needed, work) }
    }

    /// The same with any size: what does not fit is allocated.
    pub(crate) fn lent(&self, work: impl FnOnce() -> Result<(), Error>) -> Result<(), Failure> {
        self.run(|| Ok(0), work)
    }

    #[cold]
    fn run_in_scratch<E>(
        &self,
        needed: impl FnOnce() -> Result<usize, Error>,
        work: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), Failure>
    where
        Failure: From<E>,
    {
        let (p, size) = self.scratch.unwrap_or((std::ptr::null_mut(), 0));
        let needed = needed()?;
        if size < needed {
            return Err(Reason::Scratch { size, needed }.into());
        }
        // SAFETY: the caller lends it for the time of the call. Bytes from another language have
        // some value.
        let memory = unsafe { slice_mut("scratch", p, size) }?;
        Ok(softmax::with_scratch(memory, work)?)
    }
}

/// Compares bits: the caller's floating-point environment may trap a comparison of numbers.
const fn is_one(x: f64) -> bool {
    x.to_bits() == 1.0f64.to_bits()
}

/// Refuses unknown flags.
fn check_flags(options: &softmax_options) -> Result<(), Failure> {
    const FLAGS: u32 = SOFTMAX_MASKED_ZERO | SOFTMAX_THREADS_EXACT | SOFTMAX_CACHES;
    match options.flags & !FLAGS {
        0 => Ok(()),
        flags => Err(Reason::Flags { of: softmax_options::NAME, flags }.into()),
    }
}

/// Writes a failure's message to the place that the options give.
///
/// # Safety
/// The options are null or valid.
unsafe fn message(options: *const softmax_options, failure: &Reason) {
    // SAFETY: as this function's.
    let Ok(options) = (unsafe { read_or(options, &DEFAULT) }) else { return };
    if options.message.is_null() || options.message_size == 0 {
        return;
    }
    let text = failure.to_string();
    // SAFETY: the caller lends it for the time of the call.
    let place = unsafe { slice_mut("message", options.message.cast::<u8>(), options.message_size) };
    let Ok([text_place @ .., _]) = place.as_deref() else { return };
    // Not inside a character.
    let n = text.floor_char_boundary(text_place.len());
    if let Ok(place) = place {
        place[..n].copy_from_slice(&text.as_bytes()[..n]);
        place[n] = 0;
    }
}

/// Makes a call: reads the options, does the work, and returns the status. No panic leaves it.
///
/// # Safety
/// The options are null or valid.
#[inline(always)]
pub(crate) unsafe fn call(
    options: *const softmax_options,
    f: &impl Fn(&Call) -> Result<(), Failure>,
) -> softmax_status {
    // A single pointer is passed on.
    let work = &(options, f);
    // A panic leaves nothing half-done but this call's output, which has no promised value then.
    let result = catch_unwind(AssertUnwindSafe(move || {
        // SAFETY: as this function's.
        unsafe { Call::with(work.0, work.1) }
    }));
    match result {
        Ok(Ok(())) => softmax_status::Ok,
        // SAFETY: as this function's.
        Ok(Err(failure)) => unsafe { refused(options, failure) },
        Err(panic) => {
            // Forgotten, because dropping it may panic, too.
            std::mem::forget(panic);
            softmax_status::Internal
        }
    }
}

/// Writes the message of a failure and returns its status.
///
/// # Safety
/// The options are null or valid.
#[cold]
#[inline(never)]
unsafe fn refused(options: *const softmax_options, failure: Failure) -> softmax_status {
    let told = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: as this function's.
        unsafe { message(options, &failure.0) };
    }));
    if told.is_ok() { failure.0.status() } else { softmax_status::Internal }
}

/// A call without options.
pub(crate) fn plain_call(f: impl Fn() -> Result<(), Failure>) -> softmax_status {
    // SAFETY: null is valid.
    unsafe { call(std::ptr::null(), &|_| f()) }
}
