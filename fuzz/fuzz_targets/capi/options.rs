//! The options of a call, and threads for it.

use std::ffi::{c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use softmax_capi::*;

use crate::input::Input;
use crate::memory::{Memory, Written};

/// The options as a call gets them.
pub struct Options {
    pub value: softmax_options,
    pub pointer: *const softmax_options,
    /// The context of the callback, which notes what the call must not do.
    pub crew: Box<Crew>,
    /// Whether there is enough scratch memory.
    pub enough: bool,
    /// All structs of the call.
    pub structs: Vec<Box<dyn std::fmt::Debug>>,
}

/// The behaviour of a caller's threads.
#[derive(Debug)]
pub struct Crew {
    kind: usize,
    threads: usize,
    pub wrong: AtomicBool,
}

type Body = unsafe extern "C" fn(*mut c_void, usize);

/// A pointer for other threads.
#[derive(Clone, Copy)]
struct Argument(*mut c_void);

// SAFETY: the library says that bodies may be called from any thread.
unsafe impl Sync for Argument {}

/// # Safety
/// The context is a [`Crew`]; the body may be called with its argument.
unsafe extern "C" fn parallel_for(
    context: *mut c_void,
    count: usize,
    body: Option<Body>,
    argument: *mut c_void,
) {
    // SAFETY: as this function's.
    let crew = unsafe { &*context.cast::<Crew>() };
    let Some(body) = body else {
        crew.wrong.store(true, Ordering::Relaxed);
        return;
    };
    if count > crew.threads || count == 0 {
        crew.wrong.store(true, Ordering::Relaxed);
    }
    let argument = Argument(argument);
    let run = |index: usize| {
        let argument = &argument;
        // SAFETY: as this function's; each index once.
        unsafe { body(argument.0, index) };
    };
    // Many calls are left out.
    let some = count.min(64);
    match crew.kind {
        0 => (0..some).for_each(run),
        1 => (0..some).rev().for_each(run),
        2 => (0..some).filter(|i| i % 3 == 1).for_each(run),
        3 => {}
        4 => (count - some..count).for_each(run),
        _ => std::thread::scope(|scope| {
            for index in 0..count.min(3) {
                scope.spawn(move || run(index));
            }
        }),
    }
}

impl Options {
    /// Makes random options. `needed` tells how much scratch memory the call needs with some
    /// options; `shared` is something that it writes.
    pub fn new(
        input: &mut Input,
        needed: &dyn Fn(*const softmax_options) -> Option<usize>,
        shared: Option<Written>,
    ) -> Self {
        let mut value = softmax_options {
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
        let plain = value;
        let threads = input.below(5);
        let kind = input.below(6);
        let mut crew = Box::new(Crew { kind, threads, wrong: AtomicBool::new(false) });
        if input.rarely(8) {
            return Self {
                value,
                pointer: std::ptr::null(),
                crew,
                enough: false,
                structs: Vec::new(),
            };
        }
        match input.below(6) {
            2 => value.scale = input.float(&[0.125, 8.0, 1e-18, 1e18, 0.0, -1.0, f64::INFINITY]),
            3 => {
                let likely = [0.7, 2.0, 0.0, f64::INFINITY, 1e-30, 1e30, -0.0, f64::NAN];
                value.temperature = input.float(&likely);
            }
            4 if input.rarely(6) => (value.scale, value.temperature) = (0.5, 0.5),
            _ => {}
        }
        value.flags = input.below(8) as u32;
        if input.rarely(64) {
            value.flags |= 1 << input.below(32);
        }
        value.cache_core = input.pick(&[0, 1 << 16, 1 << 21, usize::MAX]);
        value.cache_last = input.pick(&[0, 1 << 14, 1 << 25, usize::MAX]);
        if input.below(2) == 1 {
            let mut name = input.pick(&[&b"avx512"[..], b"avx2", b"portable", b"scalar", b"neon"]);
            if input.rarely(16) {
                let long = &[b'x'; 300];
                name = input.pick(&[&b""[..], b"\xff\xfe", b"avx", long, "\u{e9}".as_bytes()]);
            }
            value.kernel = input.string(name);
        }
        value.threads = input.pick(&[0, 1, 2, 3, 5, 64, usize::MAX]);
        if input.below(3) == 1 {
            crew.threads = match input.below(8) {
                7 => input.huge(),
                n => n,
            };
            let parallel = softmax_parallel {
                size: size_of::<softmax_parallel>(),
                context: (&raw mut *crew).cast(),
                threads: crew.threads,
                parallel_for: (!input.rarely(64)).then_some(parallel_for),
            };
            value.parallel = input.descriptor(parallel);
        }
        if input.below(4) != 3 {
            let size = input.below(200);
            value.message_size = size;
            let at_end = input.at_end();
            value.message = input.memory.take(size, at_end, 0).cast();
            if size == 0 && input.below(2) == 0 {
                value.message_size = input.huge();
            }
        }
        let mut enough = false;
        match input.below(6) {
            1..4 => {
                let needed = needed(&raw const value).filter(|&n| n <= Memory::MOST - 64);
                enough = needed.is_some();
                value.scratch_size = needed.unwrap_or(64);
                let shift = input.below(64);
                let at_end = input.below(2) == 0;
                value.scratch = input.memory.take(value.scratch_size, at_end, shift).cast();
            }
            4 => {
                value.scratch_size = input.below(3000);
                value.scratch = input.memory.take(value.scratch_size, true, 0).cast();
            }
            5 if input.below(8) == 6 => {
                // Overlapping an output.
                if let Some(shared) = shared.filter(|w| w.rows > 0 && !w.start.is_null()) {
                    value.scratch = shared.start.cast();
                    value.scratch_size = shared.len;
                }
            }
            5 if input.rarely(8) => {
                value.scratch_size = input.huge();
                value.scratch = input.memory.take(0, true, 0).cast();
            }
            _ => {}
        }
        let pointer = input.descriptor(value);
        if pointer.is_null() {
            return Self { value: plain, pointer, crew, enough: false, structs: Vec::new() };
        }
        Self { value, pointer, crew, enough, structs: Vec::new() }
    }

    /// Whether the call can read them.
    pub fn readable(&self) -> bool {
        if self.pointer.is_null() || !self.pointer.is_aligned() {
            return false;
        }
        // SAFETY: not null, so the first field is there; and all of it, if that says so.
        unsafe {
            let size = self.pointer.cast::<usize>().read();
            let known = size_of::<softmax_options>();
            let extra = self.pointer.cast::<u8>().wrapping_add(known);
            match size.wrapping_sub(known) {
                0 => true,
                n if n <= 16 => (0..n).all(|i| extra.add(i).read() == 0),
                _ => false,
            }
        }
    }

    /// Everything that every call may write: scratch memory, and the message if it fails.
    pub fn written(&self, fails: bool) -> Vec<Written> {
        let mut written = Vec::new();
        if !self.readable() {
            return written;
        }
        let o = &self.value;
        if o.scratch_size <= Memory::MOST {
            written.push(Written::of(o.scratch.cast::<u8>(), o.scratch_size));
        }
        if fails && o.message_size <= Memory::MOST {
            written.push(Written::of(o.message, o.message_size));
        }
        written
    }

    /// The message of a call that failed, if there is room for one.
    pub fn message(&self) -> Option<&[c_char]> {
        let (p, n) = (self.value.message, self.value.message_size);
        let there = self.readable() && !p.is_null() && (1..=Memory::MOST).contains(&n);
        // SAFETY: it is memory of this call, which has returned.
        there.then(|| unsafe { std::slice::from_raw_parts(p, n) })
    }

    /// Options that give the same bits: one thread, the reference, no scratch memory and no threads
    /// of the caller.
    pub fn reference(&self) -> softmax_options {
        softmax_options {
            flags: self.value.flags & SOFTMAX_MASKED_ZERO,
            kernel: c"scalar".as_ptr(),
            threads: 1,
            parallel: std::ptr::null(),
            scratch: std::ptr::null_mut(),
            message: std::ptr::null_mut(),
            ..self.value
        }
    }
}
