//! The module behind the Python package `softmax`: arrays of NumPy, PyTorch and others in, the same
//! out, computed by the crate `softmax`.

mod array;
mod attention;
mod backward;
#[cfg(feature = "command")]
mod command;
mod dlpack;
mod info;
mod loss;
mod mask;
mod online;
mod options;
mod ragged;
mod ragged_loss;
mod reduce;
mod route;
mod rows;
mod sample;
mod shards;
mod speculative;
mod torch;

use pyo3::prelude::*;

/// What `softmax/__init__.py` passes on.
#[pymodule]
mod _softmax {
    #[pymodule_export]
    use crate::attention::attention_softmax;
    #[pymodule_export]
    use crate::backward::{entropy_backward, kl_divergence_backward, softmax_backward};
    #[cfg(feature = "command")]
    #[pymodule_export]
    use crate::command::command;
    #[pymodule_export]
    use crate::info::{info, kernels, plan, release_scratch};
    #[pymodule_export]
    use crate::loss::{cross_entropy, cross_entropy_with_grad};
    #[pymodule_export]
    use crate::online::{PyOnlineSoftmax, merge_outputs};
    #[pymodule_export]
    use crate::ragged::{argmax_ragged, log_softmax_ragged, logsumexp_ragged, softmax_ragged};
    #[pymodule_export]
    use crate::ragged_loss::{
        cross_entropy_ragged, cross_entropy_with_grad_ragged, softmax_backward_ragged,
    };
    #[pymodule_export]
    use crate::reduce::{argmax, entropy, kl_divergence, log_probs, logsumexp, perplexity, top_k};
    #[pymodule_export]
    use crate::route::route;
    #[pymodule_export]
    use crate::rows::{hardmax, log_sigmoid, log_softmax, sigmoid, softmax};
    #[pymodule_export]
    use crate::sample::PySampler;
    #[pymodule_export]
    use crate::shards::{PyMergedRow, PyShards};
    #[pymodule_export]
    use crate::speculative::PySpeculativeSampler;
}
