//! What the host says about memory: the limit of this process's cgroup, and giving freed memory back to it.

use std::fs;
use std::path::{Path, PathBuf};

/// Without a limit, or where a quarter of it is more: 10,000 connections that are stuck at once then hold 6 KiB each.
const MOST: usize = 64 << 20;
/// A sidecar with a very small limit still has to move bytes.
const LEAST: usize = 4 << 20;

/// A quarter of the memory that this process may use, at most 64 MiB. The rest is for the program, its tables and the
/// kernel's socket buffers, which count against the same limit.
pub fn default_total() -> usize {
    total(cgroup_limit())
}

fn total(limit: Option<u64>) -> usize {
    let quarter = limit.map_or(MOST, |limit| usize::try_from(limit / 4).unwrap_or(MOST));
    quarter.clamp(LEAST, MOST)
}

/// The smallest limit of this process's cgroup and of those above it, in version 2 or 1 of the hierarchy.
fn cgroup_limit() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    limits(&own, &mounts)
        .into_iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .min()
}

/// The files that may hold a limit. A line of `/proc/self/cgroup` is `number:controllers:path`.
fn limits(own: &str, mounts: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for mount in mounts.lines() {
        let mut fields = mount.split(' ');
        let (Some(_), Some(at), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (controller, file) = match kind {
            "cgroup2" => ("", "memory.max"),
            "cgroup" if options.split(',').any(|o| o == "memory") => ("memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        let path = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|c| c == controller).then_some(path)
        });
        let Some(path) = path else { continue };
        // In a container the path may be that of the host, which is not there: then the root of the mount is the
        // container's own cgroup.
        for below in Path::new(path.trim_start_matches('/')).ancestors() {
            files.push(Path::new(at).join(below).join(file));
        }
    }
    files
}

/// Asks the allocator to give back what is free, which after a burst of many connections is most of what it has.
/// The C library keeps it otherwise, and the process looks as large as it ever was.
pub fn trim() {
    super::sys::trim();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_limit_within_bounds() {
        assert_eq!(total(None), 64 << 20);
        assert_eq!(total(Some(128 << 20)), 32 << 20);
        assert_eq!(total(Some(u64::MAX)), 64 << 20);
        assert_eq!(total(Some(1 << 20)), 4 << 20);
    }

    #[test]
    fn limits_are_looked_for_in_both_hierarchies_and_above() {
        let own = "5:memory:/pods/a\n0::/pods/a\n";
        let mounts = "cgroup2 /cg cgroup2 rw 0 0\ncg1 /m cgroup rw,memory 0 0\ncg1 /c cgroup rw,cpu 0 0\n";
        let files: Vec<String> = limits(own, mounts)
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        assert_eq!(
            files,
            [
                "/cg/pods/a/memory.max",
                "/cg/pods/memory.max",
                "/cg/memory.max",
                "/m/pods/a/memory.limit_in_bytes",
                "/m/pods/memory.limit_in_bytes",
                "/m/memory.limit_in_bytes",
            ]
        );
    }
}
