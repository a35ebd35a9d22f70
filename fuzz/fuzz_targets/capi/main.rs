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
        let bytes = Unstructured::new(data);
        let mut input = Input { bytes, memory, structs: Vec::new() };
        let planned = calls::plan(&mut input);
        let mut options = Options::new(&mut input, &*planned.needed, shared(&planned));
        options.structs = input.structs;
        check(memory, &planned, &options);
    });
});

/// Something that scratch memory may overlap, to be refused.
fn shared(planned: &Planned) -> Option<Written> {
    planned.written.first().copied().filter(|_| planned.guards_scratch && planned.whole)
}

/// Whether an output overlaps something else, so that the call must be refused.
fn overlap(written: &[Written], read: &[Written]) -> bool {
    written.iter().enumerate().any(|(i, a)| {
        let others = written[i + 1..].iter().chain(read);
        others.into_iter().any(|b| a.meets(b))
    })
}

/// Fails with a description of the call and of what is wrong.
fn fail(planned: &Planned, options: &Options, what: &str) -> ! {
    let Planned { name, read, written, .. } = planned;
    let structs = &options.structs;
    panic!("{name}: {what}\n reads {read:?}\n writes {written:?}\n structs {structs:#?}")
}

fn check(memory: &mut Memory, planned: &Planned, options: &Options) {
    memory.remember();
    let status = (planned.call)(options.pointer);
    let fail = |what: &str| fail(planned, options, &format!("{status:?}, but {what}"));
    if !(0..=19).contains(&(status as i32)) || status == Status::Internal {
        fail("that is no status to give");
    }
    if options.crew.wrong.load(Ordering::Relaxed) {
        fail("parallel_for was not called as is said");
    }

    // Everything that may have been written.
    let done = status == Status::Ok;
    let mut written = options.written(!done || !planned.whole);
    if done || matches!(status, Status::Memory | Status::Room) || !planned.whole {
        written.extend(&planned.written);
    }
    if status == Status::Again {
        written.extend(planned.again);
    }
    if let Some(changed) = memory.changed(&written) {
        fail(&changed);
    }

    if !done {
        if let Some(message) = options.message().filter(|_| planned.has_options) {
            // SAFETY: as many bytes as characters.
            let bytes =
                unsafe { std::slice::from_raw_parts(message.as_ptr().cast(), message.len()) };
            match CStr::from_bytes_until_nul(bytes).map(CStr::to_str) {
                Err(_) => fail("there is no message"),
                Ok(Err(_)) => fail("the message is cut within a character"),
                Ok(Ok(_)) => {}
            }
        }
        if status == Status::Scratch && options.enough {
            fail("there is as much as is needed");
        }
        return;
    }
    if overlap(&planned.written, &planned.read) {
        fail("something overlaps what is written");
    }
    if options.readable() && planned.guards_scratch && planned.whole {
        let scratch = options.written(false);
        if scratch.iter().any(|scratch| planned.written.iter().any(|w| w.meets(scratch))) {
            fail("scratch memory overlaps what is written");
        }
    }
    let zero = options.readable() && options.value.flags & softmax_capi::SOFTMAX_MASKED_ZERO != 0;
    if let Err(what) = (planned.check)(zero) {
        fail(&what);
    }
    if planned.bits
        && let Err(what) = bits(memory, planned, options)
    {
        fail(&what);
    }
}

/// Whether the reference on one thread gives the same bits.
fn bits(memory: &mut Memory, planned: &Planned, options: &Options) -> Result<(), String> {
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
    if status != Status::Ok {
        return Err(format!("the reference says {status:?}"));
    }
    for (number, (a, b)) in found.iter().zip(planned.written.iter().map(bytes)).enumerate() {
        if let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) {
            let near = |of: &[u8]| of[at & !7..].iter().take(16).copied().collect::<Vec<_>>();
            let (a, b) = (near(a), near(&b));
            let at = at & !7;
            return Err(format!(
                "output {number} has {a:x?} from byte {at} on, by the reference {b:x?}"
            ));
        }
    }
    Ok(())
}
