//! Reports on latency logs: added up, cut to a window, and shown as a table, a plot, a page, or data.
//!
//! Each form is a function from a [`Run`] to text. Histograms are added, percentiles never averaged.

mod backlog;
mod chart;
pub mod compare;
mod curve;
mod escape;
pub mod hgrm;
pub mod html;
pub mod json;
pub mod png;
mod remarks;
mod run;
mod stack;
pub mod svg;
pub mod text;
mod timeline;

pub use remarks::remarks;
pub use run::{Measured, Run, Window};
