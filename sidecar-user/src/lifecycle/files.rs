//! How many descriptors the process may have. Who gets them is each role's business.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Connections take descriptors; the usual soft limit of 1,024 is for programs that use select().
pub fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// How many descriptors this process may have.
pub fn file_limit() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}
