//! Errors as one line: what they are about, and the cause.

use std::fmt;

/// Why the program gives up.
#[derive(Debug)]
pub struct Failure {
    subject: String,
    cause: String,
    code: u8,
}

impl Failure {
    /// `subject` is a file or an option.
    pub fn new(subject: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { subject: subject.to_string(), cause: cause.to_string(), code: 2 }
    }

    /// Of a program that did what it was asked to, and found what it was to look for.
    pub fn finding(subject: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { code: 1, ..Self::new(subject, cause) }
    }

    /// What the program ends with: 1 for a finding, else 2, as clap does for usage errors.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line whatever is in a file's name or in the message of a library.
        let line = format!("{}: {}", self.subject, self.cause);
        f.write_str(&line.replace(|c: char| c.is_control(), " "))
    }
}
