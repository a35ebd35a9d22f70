//! The reference of `sample.rs`.
