//! Files as memory: the only unsafe code of this program.
//!
//! No crate offers a sound safe call for this, because another process may always change a file;
//! the crates that hide the `unsafe` hide the question with it. So it is asked, and answered, here.

use std::fs::File;
use std::io;

use memmap2::{Advice, Mmap};

/// The bytes of a file, read when they are first used.
pub fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map must not change while it is borrowed. This program never writes to the file: its output goes
    // to a new one that takes the name, if it is the same, only by a rename, which leaves this one as it is.
    // That no other process writes to it meanwhile is asked of the user (`softmax run --help`), as no
    // system can promise it. If one does, the results are of no use; lengths and offsets are checked
    // once, copied out of the map and never read again, so that no access leaves the map. A file that is cut
    // short meanwhile ends the process with SIGBUS.
    let map = unsafe { Mmap::map(file)? };
    // It is read once, from its start to its end. If the system takes no advice, it is only slower.
    #[cfg(unix)]
    let _ = map.advise(Advice::Sequential);
    Ok(map)
}
