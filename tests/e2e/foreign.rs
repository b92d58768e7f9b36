//! Programs that nobody here wrote, run twice: bare, and with a sidecar on both sides. What they print, how they end
//! and what the servers saw of their clients must be equal; `foreign/<family>.rs` holds a scenario each.
//!
//! The servers are in another pod, dialled by its address: that is the one way which exists without a mesh too.
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
    let (bare, intercepted) = thread::scope(|scope| {
        let bare = scope.spawn(|| scenario(&World::bare(kind)?).context("bare"));
        let intercepted = scenario_in_mesh(kind, scenario);
        (bare.join(), intercepted)
    });
    let bare = match bare {
        Ok(facts) => facts,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    match (bare, intercepted) {
        (Ok(bare), Ok(intercepted)) => {
            if std::env::var_os("FOREIGN_FACTS").is_some() {
                eprintln!("{bare}");
            }
            let differences = bare.differences(&intercepted, accepted);
            assert!(differences.is_empty(), "\n{}", differences.join("\n"));
        }
        (bare, intercepted) => {
            for error in [bare.err(), intercepted.err()].into_iter().flatten() {
                eprintln!("{error:#}");
            }
            panic!("{kind}: the scenario could not be played to its end");
        }
    }
}

fn scenario_in_mesh(kind: &str, scenario: fn(&World) -> Result<Facts>) -> Result<Facts> {
    scenario(&World::intercepted(kind)?).context("intercepted")
}
