//! The kernel door, against the real kernel: each test in a pod of its own, made by `pod`.
//!
//! They need root and fail without it. `object.rs` needs nothing.

mod app_ports;
mod app_ports_looks;
mod attached;
mod capture;
mod confined;
mod control;
mod control_cost;
mod control_refused;
mod documented;
mod ending;
mod facts;
mod hold;
mod inbound;
mod lease;
mod lifecycle;
mod map;
mod memory;
mod node;
mod object;
mod options;
mod outbound;
mod pod;
mod policy;
mod present;
mod probe;
mod probes;
mod proof;
mod routes;
mod session;
mod takeover;
mod target;
mod upgrade;
mod without_bpf;
