//! What can be wrong.

use std::fmt;

/// Why something cannot be done. Shown as one line.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// It is not JSON, or not all of it is there.
    Syntax {
        /// What the caller named the bytes.
        name: String,
        /// The field in which it ends or goes wrong; empty if that is none.
        field: String,
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What is wrong.
        cause: String,
    },
    /// It is JSON, but no report, or one with values that make no sense.
    Field {
        /// What the caller named the bytes.
        name: String,
        /// Which field, such as `cases[3].result.timing.median`; empty for all of it.
        field: String,
        /// What is wrong.
        cause: String,
    },
    /// Speeds are compared with those of another report, but this many were given.
    TooFew(usize),
    /// A speed cannot be expected to be this part of another.
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
        // One line whatever is in the JSON.
        f.write_str(&line.replace(|c: char| c.is_control(), " "))
    }
}

impl std::error::Error for Error {}
