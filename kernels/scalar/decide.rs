//! The reference of `decide.rs`.
