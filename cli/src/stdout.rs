//! Standard output.

use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

use serde_json::Value;

use crate::failure::{Failure, clean};

/// Standard output. A reader that has gone is not an error.
pub struct Stdout {
    out: BufWriter<StdoutLock<'static>>,
    gone: bool,
    items: usize,
}

impl Stdout {
    pub fn new() -> Self {
        Self { out: BufWriter::new(io::stdout().lock()), gone: false, items: 0 }
    }

    /// Whether the reader is gone.
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Prints one line, cleaned of control characters.
    pub fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.write(|out| writeln!(out, "{}", clean(line)))
    }

    /// Prints the next element of a JSON array, the only output.
    pub fn item(&mut self, item: &Value) -> Result<(), Failure> {
        let before = if self.items == 0 { "[" } else { ",\n" };
        self.items += 1;
        self.write(|out| write!(out, "{before}{}", json_text(item)))
    }

    /// Ends the array.
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

/// JSON without control characters, which a terminal might obey. Those below 32 are never in it;
/// the others can only be in strings.
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

/// Prints a JSON value, the only output.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print(&[json_text(value)])
}

/// Prints text of several lines.
pub fn print_text(text: &str) -> Result<(), Failure> {
    print(&text.lines().map(str::to_owned).collect::<Vec<_>>())
}

/// Prints lines.
pub fn print(lines: &[String]) -> Result<(), Failure> {
    let mut stdout = Stdout::new();
    lines.iter().try_for_each(|line| stdout.line(line))?;
    stdout.finish()
}

/// Prints lines to standard error, because standard output has something else.
pub fn print_to_stderr(lines: &[String]) -> Result<(), Failure> {
    let lines: String = lines.iter().map(|line| clean(line) + "\n").collect();
    // A failure here cannot be reported.
    let _ = io::stderr().write_all(lines.as_bytes());
    Ok(())
}
