//! The reports of `softmax bench`: what is in them ([`schema`]), and the tables and charts that `softmax report` makes of them.
#![forbid(unsafe_code)]

pub mod schema;
