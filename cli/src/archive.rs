//! The `.npz` file that is written.

use std::io;

use rawzip::ZipArchiveWriter;

use crate::npz::SUFFIX;
use crate::output::Output;

/// An archive to be, of what is only stored: probabilities hardly become smaller.
pub struct Archive {
    zip: ZipArchiveWriter<Output>,
    /// The array that is being written, with its header.
    name: String,
    array: Vec<u8>,
}

impl Archive {
    pub fn new(output: Output) -> Self {
        Self { zip: ZipArchiveWriter::new(output), name: String::new(), array: Vec::new() }
    }

    /// The next array, of so many bytes with its header.
    pub fn begin(&mut self, name: &str, bytes: usize) -> Result<(), String> {
        self.name = format!("{name}{SUFFIX}");
        self.array.clear();
        let memory = self.array.try_reserve_exact(bytes);
        memory.map_err(|_| format!("no memory for an array of {bytes} bytes"))
    }

    /// More of it.
    pub fn write(&mut self, bytes: &[u8]) {
        self.array.extend_from_slice(bytes);
    }

    /// Writes the array.
    pub fn end(&mut self) -> Result<(), String> {
        let mut write = || {
            let (mut file, data) = self.zip.new_file(&*self.name).start()?;
            let mut data = data.wrap(&mut file);
            io::Write::write_all(&mut data, &self.array)?;
            let (_, descriptor) = data.finish()?;
            file.finish(descriptor)
        };
        write().map(drop).map_err(|e| format!("cannot be written: {e}"))
    }

    /// Ends the archive.
    pub fn finish(self) -> Result<Output, String> {
        self.zip.finish().map_err(|e| format!("cannot be written: {e}"))
    }
}
