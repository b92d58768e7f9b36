//! Paths as tables, and the rest on real cgroups with real processes: run as root.

mod find;
mod path;
mod roots;
mod subtree;
mod watch;
