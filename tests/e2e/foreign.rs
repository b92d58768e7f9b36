//! Programs that nobody here wrote, run twice: bare, and with a sidecar on both sides. What they print, how they end
//! and what the servers saw of their clients must be equal; `foreign/<family>.rs` holds a scenario each.
//!
//! The servers are in another pod, dialled by its address: that is the one way which exists without a mesh too.
//! `OUTRIGGER_FOREIGN=show` prints the facts of the bare world, and `=bare` compares it with itself: that is how to see
//! that a scenario has nothing in it that differs by chance.
//!
//! Services and their virtual addresses are in `programs.rs`, our own test program in `truth.rs`.

#[path = "foreign/world.rs"]
mod world; // two pods, bare or intercepted, and addresses that fail

#[path = "foreign/facts.rs"]
mod facts; // what was observed, without what differs by chance

#[path = "foreign/names.rs"]
mod names; // names with good and bad addresses, for clients that fall back

#[path = "foreign/curl.rs"]
mod curl;

#[path = "foreign/nginx.rs"]
mod nginx;

#[path = "foreign/redis.rs"]
mod redis;

#[path = "foreign/postgres.rs"]
mod postgres;

#[path = "foreign/ftp.rs"]
mod ftp;

#[path = "foreign/smtp.rs"]
mod smtp;

#[path = "foreign/iperf3.rs"]
mod iperf3;

#[path = "foreign/java.rs"]
mod java;

#[path = "foreign/go.rs"]
mod go;

#[path = "foreign/python.rs"]
mod python;

#[path = "foreign/grpc.rs"]
mod grpc;

use std::thread;

use anyhow::{Context, Result};

use facts::Facts;
use world::World;

const TRIAL: &str = "OUTRIGGER_FOREIGN";

/// A fact that may differ, and why no proxy of this kind can help it.
struct Accepted {
    fact: &'static str,
    reason: &'static str,
}

/// Runs the scenario in both worlds and demands the same facts of both.
#[track_caller]
fn same(kind: &str, scenario: fn(&World) -> Result<Facts>) {
    same_but(kind, scenario, &[]);
}

/// As [`same`], with exceptions. One that no longer differs must go, so it fails too.
#[track_caller]
fn same_but(kind: &str, scenario: fn(&World) -> Result<Facts>, accepted: &[Accepted]) {
    let trial = std::env::var(TRIAL).unwrap_or_default();
    let bare = || scenario(&World::bare(kind)?).context("bare");
    let intercepted = || scenario(&World::intercepted(kind)?).context("intercepted");
    let (one, other) = thread::scope(|scope| {
        let one = scope.spawn(bare);
        let other = if trial == "bare" { bare() } else { intercepted() };
        (one.join(), other)
    });
    let one = one.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (one, other) = match (one, other) {
        (Ok(one), Ok(other)) => (one, other),
        (one, other) => {
            let errors = [one.err(), other.err()].into_iter().flatten();
            let errors: Vec<String> = errors.map(|error| format!("{error:#}")).collect();
            panic!("{kind} could not be played to its end\n{}", errors.join("\n"));
        }
    };
    if trial == "show" {
        eprintln!("{one}");
    }
    let accepted = if trial == "bare" { &[] } else { accepted };
    let differences = one.differences(&other, accepted);
    assert!(differences.is_empty(), "\n{}", differences.join("\n"));
}
