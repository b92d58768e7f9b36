//! What discovery tells a proxy, as the world that its connections see.

mod snapshot;

pub use snapshot::snapshot;
