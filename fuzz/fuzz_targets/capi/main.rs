//! Calls of the C ABI with arguments that the fuzzer chooses: docs/fuzzing.md.
#![no_main]

mod calls;
mod input;
mod memory;
mod options;

use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::atomic::Ordering;

use arbitrary::Unstructured;
use softmax_capi::softmax_status as Status;

use calls::Planned;
use input::Input;
use memory::{Memory, Written};
use options::Options;

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new());
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    MEMORY.with_borrow_mut(|memory| {
        memory.clear();
        let mut input = Input { bytes: Unstructured::new(data), memory };
        let planned = calls::plan(&mut input);
        let options = Options::new(&mut input, &*planned.needed, shared(&planned));
        check(memory, &planned, &options);
    });
});

/// What scratch memory may be laid across, to be refused.
fn shared(planned: &Planned) -> Option<Written> {
    planned.written.first().copied().filter(|_| planned.guards_scratch && planned.whole)
}

/// Whether something that is written overlaps something else, so that the call must be refused.
fn overlap(written: &[Written], read: &[Written]) -> bool {
    written.iter().enumerate().any(|(i, a)| {
        let others = written[i + 1..].iter().chain(read);
        others.into_iter().any(|b| a.meets(b))
    })
}

fn check(memory: &mut Memory, planned: &Planned, options: &Options) {
    memory.remember();
    let status = (planned.call)(options.pointer);
    let name = planned.name;
    assert!((0..=18).contains(&(status as i32)), "{name}: status {}", status as i32);
    assert!(status != Status::Internal, "{name}: an internal error");
    assert!(!options.crew.wrong.load(Ordering::Relaxed), "{name}: a wrong call of parallel_for");

    // What may be written, and what was.
    let mut written = options.written(status);
    let done = status == Status::Ok;
    if done || status == Status::Memory || !planned.whole {
        written.extend(&planned.written);
    }
    if status == Status::Again {
        written.extend(planned.again);
    }
    if let Some(changed) = memory.changed(&written) {
        panic!("{name}: {status:?}, but {changed}");
    }

    if !done {
        if let Some(message) = options.message() {
            // SAFETY: as many bytes as characters.
            let bytes =
                unsafe { std::slice::from_raw_parts(message.as_ptr().cast(), message.len()) };
            let text = CStr::from_bytes_until_nul(bytes);
            let text = text.unwrap_or_else(|_| panic!("{name}: {status:?} without a message"));
            assert!(text.to_str().is_ok(), "{name}: the message is cut within a character");
        }
        let enough = status == Status::Scratch && options.enough;
        assert!(!enough, "{name}: as much scratch memory as it said was not enough");
        return;
    }
    assert!(!overlap(&planned.written, &planned.read), "{name}: an overlap was not refused");
    if options.readable() && planned.guards_scratch {
        let scratch = options.written(status);
        let overlaps = overlap(&scratch, &planned.written) && planned.whole;
        assert!(!overlaps, "{name}: scratch memory may not be what is written");
    }
    let zero = options.readable() && options.value.flags & softmax_capi::SOFTMAX_MASKED_ZERO != 0;
    (planned.check)(zero);
    if planned.bits {
        bits(memory, planned, options);
    }
}

/// The reference on one thread gives the same bits.
fn bits(memory: &mut Memory, planned: &Planned, options: &Options) {
    let bytes = |written: &Written| -> Vec<u8> {
        let pieces = written.pieces();
        // SAFETY: the call has written it.
        let piece = |at: usize| unsafe { std::slice::from_raw_parts(at as *const u8, written.len) };
        pieces.flat_map(piece).copied().collect()
    };
    let found: Vec<_> = planned.written.iter().map(bytes).collect();
    memory.restore();
    let reference = options.reference();
    let status = (planned.call)(&raw const reference);
    let name = planned.name;
    assert!(status == Status::Ok, "{name}: the reference says {status:?}");
    for (a, b) in found.iter().zip(planned.written.iter().map(bytes)) {
        if let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) {
            let near = |of: &[u8]| of[at & !7..].iter().take(16).copied().collect::<Vec<_>>();
            panic!("{name}: byte {at} differs, {:x?}, by the reference {:x?}", near(a), near(&b));
        }
    }
}
