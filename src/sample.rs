//! Draws from rows.
