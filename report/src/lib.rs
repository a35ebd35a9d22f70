//! The reports of `softmax bench`: their contents ([`schema`]), and the tables and charts that
//! `softmax report` makes of them.
//!
//! ```
//! let report = softmax_report::read(br#"{"schema": "softmax-report", "version": 1}"#, "a.json");
//! assert_eq!(report.unwrap_err().to_string(), "a.json: date: missing field");
//! ```
#![forbid(unsafe_code)]

mod cases;
mod chart;
mod compare;
mod csv;
mod error;
mod format;
mod json;
mod page;
#[cfg(feature = "png")]
mod png;
mod read;
pub mod schema;
mod table;

pub use chart::{Chart, charts};
pub use compare::{Change, Regression, below};
pub use csv::csv;
pub use error::Error;
pub use json::json;
pub use page::html;
#[cfg(feature = "png")]
pub use png::png;
pub use read::{read, write};
pub use schema::Report;
pub use table::table;
