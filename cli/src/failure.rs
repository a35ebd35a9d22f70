//! Errors as one line: what they are about, and the cause.

use std::borrow::Cow;
use std::fmt;

/// Why the program gives up.
#[derive(Debug)]
pub struct Failure {
    subject: String,
    cause: String,
    code: u8,
}

/// Most characters of a cause: files may have names and types of any length.
const MOST: usize = 600;

impl Failure {
    /// `subject` is a file or an option.
    pub fn new(subject: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { subject: subject.to_string(), cause: cause.to_string(), code: 2 }
    }

    /// Of a program that did what it was asked to, and found what it was to look for.
    pub fn finding(subject: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { code: 1, ..Self::new(subject, cause) }
    }

    /// Of a part of its subject.
    pub fn about(self, part: &str) -> Self {
        Self { cause: format!("{part}: {}", self.cause), ..self }
    }

    /// With something to do about it.
    pub fn with(self, advice: &str) -> Self {
        Self { cause: format!("{}; {advice}", self.cause), ..self }
    }

    /// What the program ends with: 1 for a finding, else 2, as clap does for usage errors.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line whatever is in a file's name or in the message of a library.
        write!(f, "{}: {}", clean(&self.subject), clean(&clip(&self.cause, MOST)))
    }
}

/// Text without what moves a terminal's cursor, or changes what it does.
pub fn clean(text: &str) -> String {
    text.replace(|c: char| c.is_control(), " ")
}

/// Text of so many characters at most.
pub fn clip(text: &str, most: usize) -> Cow<'_, str> {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}

/// The first of some names, as a message has room for them.
pub fn list<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const FIRST: usize = 8;
    let more = names.len().saturating_sub(FIRST);
    let first: Vec<_> = names.take(FIRST).map(|name| clip(name, 60)).collect();
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    first.join(", ") + &more
}
