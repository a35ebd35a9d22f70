//! Errors as one line: what they are about, and the cause.

use std::fmt;

/// Why the program gives up.
#[derive(Debug)]
pub struct Failure {
    subject: String,
    cause: String,
}

impl Failure {
    /// `subject` is a file or an option.
    pub fn new(subject: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self { subject: subject.to_string(), cause: cause.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line whatever is in a file's name or in the message of a library.
        let line = format!("{}: {}", self.subject, self.cause);
        f.write_str(&line.replace(|c: char| c.is_control(), " "))
    }
}
