//! Measurements of the crate `softmax`, for its benches and for `softmax bench`: inputs that are
//! the same everywhere ([`data`]), operations on them ([`operation`]), results checked against an
//! oracle and a digest ([`check`], [`oracle`]), the machine's own limits ([`limits`]), and times in
//! interleaved rounds ([`timing`]). [`plan`] lists what `softmax bench` times.
#![forbid(unsafe_code)]

pub mod check;
pub mod data;
pub mod limits;
pub mod operation;
pub mod oracle;
pub mod plan;
#[cfg(feature = "threads")]
pub mod pool;
pub mod timing;
