//! Reports as users see them.

mod charts;
mod compare;
mod csv;
mod page;
mod read;
mod sample;
mod table;
