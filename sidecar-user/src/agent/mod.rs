//! ROLE: one process for all pods of a node.

pub mod memory;
