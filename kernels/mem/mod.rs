//! The machine: memory and the floating-point environment.

pub(crate) mod fpenv;
pub(crate) mod memory;
pub(crate) mod scratch;
