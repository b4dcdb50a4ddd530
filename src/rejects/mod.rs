//! Rejected messages: sending them to their topic again.

pub mod replay;
