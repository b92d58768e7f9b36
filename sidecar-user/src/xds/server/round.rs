//! How our own servers tell where what belongs together ends.

/// The version of a response that is not the last of what belongs together. Other clients do not look at it.
pub(in super::super) const MORE: &str = "more";
/// Of one that is.
pub(in super::super) const LAST: &str = "last";
