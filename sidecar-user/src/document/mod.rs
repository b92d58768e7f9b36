//! HOW IS A FILE READ? With care, and again when it changes. Used by the rooms whose files users write by hand.
//!
//! A YAML document read with care: every value knows its line, and a reader collects every problem it meets
//! instead of stopping at the first. Knows nothing of registries or settings, which are read through it.
//!
//! The tree is built from parser events rather than through serde because a message such as "line 12, column 5:
//! `workloads[1].protocol`: did you mean HBONE?" needs the position of each value, the enum tags of ztunnel's
//! policies (`!Exact "v"`), and the text of a scalar as it was written.

mod field;
mod problem;
mod tree;
mod watched;

pub use field::{Field, Object, Sink, nearest};
pub use problem::{Position, Problem, Problems};
pub use tree::{Kind, Node, load, load_all};
pub use watched::Watched;
