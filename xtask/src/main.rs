//! Outrigger's chores, one verb each. A verb lives in the file of its name and is started by `run(opts)`.
//!
//! Nothing here is part of the product, and nothing here is needed to build it by plain cargo once
//! `cargo xtask setup` has run.

mod bench;
mod ci;
mod cluster;
mod compile;
mod demo;
mod fuzz;
mod host;
mod image;
mod krew;
mod manifests;
mod modes;
mod progress;
mod setup;
mod smoke;
mod test;
mod tidy;
mod totals;
#[cfg(test)]
mod units;
mod vm;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

/// Outrigger's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Verb {
    /// Install what building, testing and the demo need on this machine.
    Setup(setup::Opts),
    /// Run a small mesh of real programs on this machine, and prove what it does.
    Demo(demo::Opts),
    /// Run every test: unit, doc and end-to-end.
    Test(test::Opts),
    /// Run the tests that concern the kernel on other kernels, under emulation.
    Vm(vm::Opts),
    /// Fuzz everything that is parsed from the network or from a user.
    Fuzz(fuzz::Opts),
    /// Run a real Kubernetes of two nodes on this machine, and the tests that need one.
    Cluster(cluster::Opts),
    /// Put together the files of our image, for deploy/images/Containerfile.
    Image(image::Opts),
    /// Make the archive of the kubectl plugin for this architecture, and the manifest by which krew installs it.
    Krew(krew::Opts),
    /// Write what Helm makes of our chart, for who has no Helm.
    Manifests(manifests::Opts),
    /// Measure what a pair of sidecars costs, beside the same load without them.
    Bench(bench::Opts),
    /// Check the house rules: who imports whom, file headers, file lengths.
    Tidy(tidy::Opts),
    /// Run every gate that a change must pass, in order.
    Ci(ci::Opts),
}

fn main() -> ExitCode {
    let outcome = match Verb::parse() {
        Verb::Setup(opts) => setup::run(opts),
        Verb::Demo(opts) => demo::run(opts),
        Verb::Test(opts) => test::run(opts),
        Verb::Vm(opts) => vm::run(opts),
        Verb::Fuzz(opts) => fuzz::run(opts),
        Verb::Cluster(opts) => cluster::run(opts),
        Verb::Image(opts) => image::run(opts),
        Verb::Krew(opts) => krew::run(opts),
        Verb::Manifests(opts) => manifests::run(opts),
        Verb::Bench(opts) => bench::run(opts),
        Verb::Tidy(opts) => tidy::run(opts),
        Verb::Ci(opts) => ci::run(opts),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
