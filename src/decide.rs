//! Decisions: argmax, hardmax, a few log-probabilities, top-k, sigmoid.
