//! The end-to-end tests, in reading order.

#[path = "e2e/fabric.rs"]
mod fabric; // the harness itself: pods, programs and captures without Outrigger
