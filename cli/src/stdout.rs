//! Standard output.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use serde_json::Value;

use crate::failure::{Failure, clean};

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

    /// Prints a line, and nothing else whatever names are in it.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.write(|out| writeln!(out, "{}", clean(line)))
    }

    /// The next element of a JSON array, which is all that is printed.
    pub fn item(&mut self, item: &Value) -> Result<(), Failure> {
        let before = if self.items == 0 { "[" } else { ",\n" };
        self.items += 1;
        self.write(|out| write!(out, "{before}{}", json_text(item)))
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

/// JSON without characters that a terminal takes as commands. Those below 32 are never in it; the
/// others are only within strings.
pub fn json_text(value: &Value) -> String {
    let text = value.to_string();
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            clean += &format!("\\u{:04x}", u32::from(c));
        } else {
            clean.push(c);
        }
    }
    clean
}

/// Prints a JSON value, which is all that is printed.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&[json_text(value)])
}

/// Prints text of some lines.
pub fn print_text(text: &str) -> Result<(), Failure> {
    print(&text.lines().map(str::to_owned).collect::<Vec<_>>())
}

/// Prints lines.
pub fn print(lines: &[String]) -> Result<(), Failure> {
    let mut stdout = Stdout::new();
    lines.iter().try_for_each(|line| stdout.line(line))?;
    stdout.finish()
}

/// Prints lines to standard error: standard output has something else.
pub fn print_to_stderr(lines: &[String]) -> Result<(), Failure> {
    let lines: String = lines.iter().map(|line| clean(line) + "\n").collect();
    // Nobody is left to tell if this fails.
    let _ = io::stderr().write_all(lines.as_bytes());
    Ok(())
}
