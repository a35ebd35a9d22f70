//! Errors of this crate.

use std::fmt;

/// An error, shown as one line.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not JSON, or incomplete.
    Syntax {
        /// The caller's name of the bytes.
        name: String,
        /// The field in which it ends or goes wrong; empty if there is none.
        field: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// The description of the error.
        cause: String,
    },
    /// The JSON is not a report, or has values that make no sense.
    Field {
        /// The caller's name of the bytes.
        name: String,
        /// The field, such as `cases[3].result.timing.median`; empty for the whole file.
        field: String,
        /// The description of the error.
        cause: String,
    },
    /// A comparison needs more reports than this number.
    TooFew(usize),
    /// The factor is not in its range.
    Factor(f64),
    /// The report with this index (from 0) has no case that the first one has.
    NothingInCommon(usize),
    /// A chart cannot be drawn.
    Image(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = match self {
            Self::Syntax { name, field, line, column, cause } => {
                let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
                format!("{name}: {field}{cause} at line {line}, column {column}")
            }
            Self::Field { name, field, cause } if field.is_empty() => format!("{name}: {cause}"),
            Self::Field { name, field, cause } => format!("{name}: {field}: {cause}"),
            Self::TooFew(count) => format!("at least 2 reports can be compared, got {count}"),
            Self::Factor(factor) => {
                format!("the factor must be a number greater than 0, got {factor}")
            }
            Self::NothingInCommon(index) => {
                format!("report {} has no case that the first one has", index + 1)
            }
            Self::Image(cause) => format!("the chart cannot be drawn: {cause}"),
        };
        // Control characters are replaced, so that it stays one line.
        f.write_str(&line.replace(|c: char| c.is_control(), " "))
    }
}

impl std::error::Error for Error {}
