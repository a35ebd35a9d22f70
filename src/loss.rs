//! Losses and their gradients.
