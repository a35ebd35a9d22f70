//! What users see of reports.

mod charts;
mod compare;
mod csv;
mod page;
mod read;
mod sample;
mod table;
