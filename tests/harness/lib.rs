//! Pods on one machine, for tests, demo and bench: network namespaces, cgroups, real programs, packet captures,
//! and Outrigger's own processes around them.
//!
//! Not a test framework: it asserts nothing, it gives facts. It never touches the host's network namespace, adds
//! no netfilter rule, and starts eBPF only through `outrigger proxy`, on cgroups and namespaces it made itself.
//!
//! Reading order:
//! * [`fabric`]: one private network, a bridge in a namespace of its own
//! * [`pod`]: a place on it to run programs in; [`process`]: a program that runs there
//! * [`mesh`]: control, registry and sidecars, one by one or as a whole
//! * [`apps`]: unmodified third-party programs
//! * [`machine`]: a systemd with a machine of its own
//! * [`apiserver`]: what an agent asks of Kubernetes, without a cluster
//! * [`capture`]: what went over the bridge
//! * [`trace`]: the system calls of a running process; [`halt`]: a process that stands still before one of them
//! * [`wait`]: conditions with a limit; nothing here sleeps a fixed time
//! * [`netfilter`]: whether a namespace has rules
//! * [`interrupt`] handles Ctrl-C
//! * [`cluster`]: the Kubernetes cluster that `cargo xtask cluster` runs, its nodes and its kubectl
//! * [`chart`]: our Helm chart, and the files that it is rendered to
//! * [`name`]: how everything of one fabric is found again and removed

pub mod apiserver;
pub mod apps;
pub mod capture;
pub mod cgroup;
pub mod chart;
pub mod cluster;
pub mod fabric;
pub mod halt;
pub mod http;
pub mod interrupt;
pub mod machine;
pub mod mesh;
pub mod name;
pub mod netfilter;
pub mod netns;
pub mod pcap;
pub mod pod;
pub mod process;
pub mod seccomp;
pub mod trace;
pub mod wait;

mod sys;

pub use apiserver::ApiServer;
pub use capture::Capture;
pub use fabric::Fabric;
pub use machine::Machine;
pub use mesh::{Control, Mesh, Registry, Sidecar};
pub use pod::Pod;
pub use process::{Output, Process};
