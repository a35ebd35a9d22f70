//! Standard output.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use serde_json::Value;

use crate::failure::Failure;

/// What is printed, as much as the reader wants: one that has gone is no error.
pub struct Stdout {
    out: BufWriter<StdoutLock<'static>>,
    gone: bool,
    items: usize,
}

impl Stdout {
    pub fn new() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), gone: false, items: 0 }
    }

    /// Whether nobody reads any more.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.write(|out| writeln!(out, "{line}"))
    }

    /// The next element of a JSON array, which is all that is printed.
    pub fn item(&mut self, item: &Value) -> Result<(), Failure> {
        let before = if self.items == 0 { "[" } else { ",\n" };
        self.items += 1;
        self.write(|out| write!(out, "{before}{item}"))
    }

    /// The end of the array.
    pub fn end_of_items(&mut self) -> Result<(), Failure> {
        self.line(if self.items == 0 { "[]" } else { "]" })
    }

    pub fn finish(mut self) -> Result<(), Failure> {
        self.write(|out| out.flush())
    }

    fn write(
        &mut self,
        write: impl FnOnce(&mut BufWriter<StdoutLock<'static>>) -> io::Result<()>,
    ) -> Result<(), Failure> {
        match if self.gone { Ok(()) } else { write(&mut self.out) } {
            Err(e) if e.kind() == ErrorKind::BrokenPipe => self.gone = true,
            other => other.map_err(|e| Failure::new("standard output", e))?,
        }
        Ok(())
    }
}

/// Prints lines.
pub fn print(lines: &[String]) -> Result<(), Failure> {
    let mut stdout = Stdout::new();
    lines.iter().try_for_each(|line| stdout.line(line))?;
    stdout.finish()
}
