//! Operations on rows: one file for each way to compute them, generic over CPUs and types.

pub(crate) mod attend;
pub(crate) mod columns;
pub(crate) mod decide;
pub(crate) mod entropy;
pub(crate) mod excess;
pub(crate) mod kl;
pub(crate) mod limits;
pub(crate) mod loss;
pub(crate) mod online;
pub(crate) mod pieces;
pub(crate) mod ragged;
pub(crate) mod route;
pub(crate) mod sample;
pub(crate) mod short;
pub(crate) mod softmax;
pub(crate) mod tiny;
