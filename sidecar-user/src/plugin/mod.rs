//! ROLE: the kubectl plugin. Asks the agents of a cluster's nodes, or one admin endpoint, and prints what they say; and prints objects
//! with their sidecars.
//!
//! `access.rs` finds out whom to ask, `client.rs` asks, and each verb has a file. Data goes to stdout, messages to stderr. Exit status: 0
//! done, 1 somebody could not be asked or refused, 2 wrong usage.

use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use check::CheckArgs;
use completion::{Completion, NAME, Words};
use drain_pod::DrainPod;
use edges::Edges;
use endpoints::Endpoints;
use flows::Flows;
use identity::Identity;
use inject::{Inject, Uninject};
use intercept::Intercept;
use policy::Policy;
use status::Status;
use top::Top;
use version::VersionArgs;

mod access;
mod check;
mod client;
mod columns;
mod completion;
#[cfg(test)]
mod contract;
mod destination;
mod drain;
mod drain_pod;
mod edges;
mod endpoints;
mod error;
mod filters;
mod flows;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
#[cfg(test)]
mod golden;
mod identity;
mod inject;
mod intercept;
mod merge;
mod of_itself;
mod paint;
mod policy;
mod screen;
#[cfg(test)]
mod served;
mod status;
mod sys;
mod table;
mod top;
mod unmeshed;
mod version;
mod versions;
mod why;
mod words;
mod yaml;

pub use client::ask;
pub use drain::Drain;
pub use error::Error;
pub use why::Why;

#[derive(Debug, Parser)]
#[command(
    name = "kubectl outrigger",
    bin_name = "kubectl outrigger",
    version,
    about = "Look into Outrigger"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// The connections of pods: those that are open, and those that have ended
    Flows(Flows),
    /// What would happen to a connection, and why; or what happened to those that there were
    #[command(override_usage = "kubectl outrigger why [OPTIONS] [POD] <ADDRESS:PORT|SERVICE:PORT>")]
    Why(Why),
    /// Who talks to whom over what, and whether it is secured: a table, a document or a picture
    Edges(Edges),
    /// Who talks to whom right now, how much, and what fails: a view on the terminal
    Top(Top),
    /// The pods that have sidecars, and what is wrong with them
    Status(Status),
    /// The certificate by which a pod proves who it is: who signed it, and when the next one is due
    Identity(Identity),
    /// Who stands behind a service, as a pod's proxy has it, and where the next connection would go
    Endpoints(Endpoints),
    /// Which policies hold for a pod, and whether somebody would be let in
    Policy(Policy),
    /// Whether the cluster can have Outrigger, or whether what is installed works, with a remedy for what does not
    Check(CheckArgs),
    /// The versions of this program, of control, of agents and of sidecars
    Version(VersionArgs),
    /// What is intercepted on nodes, and by which programs in their kernels
    Intercept(Intercept),
    /// Has the sidecar of a pod end its connections in order, and start anew
    Drain(DrainPod),
    /// Prints the pods of a file with their sidecars, or what a cluster needs to inject by itself
    Inject(Inject),
    /// Prints the pods of a file without their sidecars
    Uninject(Uninject),
    /// Prints what a shell, or kubectl, needs to complete this command
    Completion(Completion),
    #[command(name = "__complete", hide = true, disable_help_flag = true)]
    Complete(Words),
}

/// Whether a program that was started by this name is the plugin.
pub fn is_called(name: &OsStr) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == NAME)
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let out = &mut io::stdout().lock();
    let done = match Cli::parse().verb {
        Verb::Flows(flows) => flows.run(out),
        Verb::Why(why) => why.run(out),
        Verb::Edges(edges) => edges.run(out),
        Verb::Status(status) => status.run(out),
        Verb::Identity(identity) => identity.run(out),
        Verb::Endpoints(endpoints) => endpoints.run(out),
        Verb::Policy(policy) => policy.run(out),
        Verb::Check(check) => check.run(out),
        Verb::Version(version) => version.run(out),
        Verb::Intercept(intercept) => intercept.run(out),
        Verb::Drain(drain) => drain.run(out),
        Verb::Inject(inject) => inject.run(out),
        Verb::Uninject(uninject) => uninject.run(out),
        Verb::Top(top) => top.run(out),
        Verb::Completion(completion) => completion.run(Cli::command(), out),
        Verb::Complete(words) => words.run(Cli::command(), out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough, as `head` does.
        Err(Error::Output { source }) if source.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kubectl outrigger: {error}");
            match error {
                Error::Usage { .. } | Error::NoImage => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_plugin_by_the_name_of_its_file() {
        let called = |name: &str| is_called(OsStr::new(name));
        assert!(called("kubectl-outrigger"));
        assert!(called("/usr/bin/kubectl-outrigger"));
        assert!(!called("/opt/kubectl-outrigger/outrigger"));
        assert!(!called(""));
    }
}
