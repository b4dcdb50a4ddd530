//! One file for each command of the command line.

pub mod audit;
pub mod dashboard;
pub mod demo;
pub mod erase;
pub mod health;
pub mod rejects;
pub mod report;
pub mod secrets;
pub mod setup;
