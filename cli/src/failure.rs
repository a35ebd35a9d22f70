//! Errors as one line: the subject and the cause.

use std::borrow::Cow;
use std::fmt;

/// An error that ends the program.
#[derive(Debug)]
pub struct Failure {
    subject: String,
    cause: String,
    code: u8,
}

/// The most characters of a cause: files may have names and types of any length.
const MOST: usize = 600;

impl Failure {
    /// An error about a `subject`, a file or an option.
    pub fn new(subject: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { subject: subject.to_string(), cause: cause.to_string(), code: 2 }
    }

    /// The end of a program that did its work and found what it looked for.
    pub fn finding(subject: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { code: 1, ..Self::new(subject, cause) }
    }

    /// Adds a part of the subject to the cause.
    pub fn about(self, part: &str) -> Self {
        Self { cause: format!("{part}: {}", self.cause), ..self }
    }

    /// Adds an advice to the cause.
    pub fn with(self, advice: &str) -> Self {
        Self { cause: format!("{}; {advice}", self.cause), ..self }
    }

    /// The exit status: 1 for a finding, else 2, as clap has for usage errors.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Cleaned, to stay one line whatever file names and messages of libraries contain.
        write!(f, "{}: {}", clean(&self.subject), clean(&clip(&self.cause, MOST)))
    }
}

/// Text without control characters, which might move a terminal's cursor or change its state.
pub fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// The first `most` characters of a text.
pub fn clip(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// The first of some names, as many as a message has room for.
pub fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const FIRST: usize = 8;
    let more = names.len().saturating_sub(FIRST);
    let first: Vec<_> = names.take(FIRST).map(|name| clip(name, 60)).collect();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    first.join(", ") + &more
}
