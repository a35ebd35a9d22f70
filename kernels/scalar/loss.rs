//! The reference of `loss.rs`.
