//! `cargo xtask cluster`: a real Kubernetes of two nodes on this machine, without Docker, registry or netfilter rule.
//!
//! Reading order: `programs.rs` builds Kubernetes, etcd, containerd, runc and CoreDNS, `images.rs` what its containers start from,
//! `up.rs` puts it together, `sweep.rs` takes it away. What tests need to know of a running one is the harness's `cluster`.

mod control_plane;
mod demo;
mod dns;
mod go;
pub(crate) mod images;
mod node;
mod pki;
pub(crate) mod programs;
mod sweep;
mod test;
mod up;
mod worker;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use harness::chart;
use harness::cluster::Cluster;
use harness::interrupt::Interrupts;
use harness::mesh::binaries;

use crate::{host, image, workspace};

/// For all that this chore keeps between runs.
const CACHE: &str = "cluster";

#[derive(clap::Args)]
pub(crate) struct Opts {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Build what is not built yet: minutes the first time, goes on where an interrupted build stopped.
    Build {
        /// Only the programs that come as Go modules, which take longest: no image, and nothing of ours.
        #[arg(long)]
        programs: bool,
    },
    /// Start the cluster and return when it is ready.
    Up,
    /// Bring it up, install Outrigger and the bookstore of deploy/examples, and show who talks to whom.
    Demo,
    /// End the cluster and remove all that it left on this machine.
    Down,
    /// Say whether there is a cluster, and how it is.
    Status,
    /// A shell on a node, with kubectl and ctr.
    Shell {
        /// One that `status` shows.
        #[arg(default_value = "node-1")]
        node: String,
        /// A program to run instead, and its arguments, after `--`.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// The cluster's kubectl, as an administrator.
    #[command(disable_help_flag = true)]
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// `kubectl outrigger` on the cluster, as an administrator.
    #[command(disable_help_flag = true)]
    Outrigger {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Helm on the cluster, in the namespace of Outrigger unless told otherwise.
    #[command(disable_help_flag = true)]
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the tests that need a cluster, on one of their own that is taken away afterwards.
    Test(test::Opts),
}

pub(crate) fn run(opts: Opts) -> Result<ExitCode> {
    match opts.action {
        Action::Build { programs: true } => programs::build().map(|_| ExitCode::SUCCESS),
        Action::Build { programs: false } => build().map(|_| ExitCode::SUCCESS),
        Action::Up => bring_up(),
        Action::Demo => demo::run(),
        Action::Down => bring_down(),
        Action::Status => status(),
        Action::Shell { node, command } => shell(&node, &command),
        Action::Kubectl { arguments } => {
            let cluster = Cluster::demand()?;
            become_program(cluster.kubectl().command()?.args(arguments))
        }
        Action::Outrigger { arguments } => {
            let cluster = Cluster::demand()?;
            use_the_programs_of_the_image();
            become_program(cluster.plugin().command()?.args(arguments))
        }
        Action::Helm { arguments } => {
            let cluster = Cluster::demand()?;
            let mut helm = cluster.first().network_command(&cluster.programs.join("helm"))?;
            helm.arg("--kubeconfig")
                .arg(&cluster.kubeconfig)
                .args(["--namespace", chart::NAMESPACE])
                .args(arguments);
            become_program(&mut helm)
        }
        Action::Test(opts) => test::run(&opts),
    }
}

/// What a cluster is made of, built and ready.
struct Parts {
    programs: programs::Programs,
    images: images::Images,
}

fn build() -> Result<Parts> {
    host::demand_fit("the cluster")?;
    let programs = programs::build()?;
    let images = images::build(&programs)?;
    Ok(Parts { programs, images })
}

fn bring_up() -> Result<ExitCode> {
    if let Some(cluster) = Cluster::find()?.filter(is_alive) {
        println!(
            "The cluster is up already, since process {}.",
            cluster.first().holder
        );
        return status();
    }
    let parts = build()?;
    let _interrupts = Interrupts::handle_with(sweep::remove)?;
    let cluster = up::bring_up(&parts)?;
    println!("\nTwo nodes are ready. Try:\n");
    for line in [
        "cargo xtask cluster kubectl get nodes,pods --all-namespaces --output wide",
        "cargo xtask cluster shell node-2",
        "cargo xtask cluster status",
        "cargo xtask cluster down",
    ] {
        println!("  {line}");
    }
    cluster.keep();
    Ok(ExitCode::SUCCESS)
}

fn bring_down() -> Result<ExitCode> {
    let _turn = up::Turn::take()?;
    sweep::remove();
    sweep::demand_nothing_left()?;
    println!("Nothing of a cluster is on this machine.");
    Ok(ExitCode::SUCCESS)
}

fn status() -> Result<ExitCode> {
    let Some(cluster) = Cluster::find()? else {
        let left = sweep::leftovers();
        if left.is_empty() {
            println!("There is no cluster; bring one up: cargo xtask cluster up");
        } else {
            println!("A cluster has not been taken away whole; run: cargo xtask cluster down");
            for leftover in left {
                println!("  {leftover}");
            }
        }
        return Ok(ExitCode::FAILURE);
    };
    if !is_alive(&cluster) {
        println!("The cluster has died; run: cargo xtask cluster down");
        return Ok(ExitCode::FAILURE);
    }
    let listed = cluster
        .kubectl()
        .command()?
        .args(["get", "nodes,pods", "--all-namespaces", "--output=wide"])
        .status()
        .context("start kubectl")?;
    Ok(if listed.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The plugin of the same build as what runs in the cluster, which is no debug build unless somebody says so.
fn use_the_programs_of_the_image() {
    if std::env::var_os(image::BUILT).is_none() {
        binaries::use_dir(workspace::target_dir().join("release"));
    }
}

fn is_alive(cluster: &Cluster) -> bool {
    cluster.nodes.iter().all(harness::cluster::Node::is_held)
}

fn shell(node: &str, command: &[OsString]) -> Result<ExitCode> {
    let cluster = Cluster::demand()?;
    let default = [OsString::from("bash")];
    let command = if command.is_empty() { &default[..] } else { command };
    let (program, arguments) = command.split_first().context("no program is given")?;
    let mut inside = cluster.node(node)?.command(Path::new(program))?;
    inside.args(arguments);
    inside.env("KUBECONFIG", &cluster.kubeconfig);
    inside.env("CONTAINERD_NAMESPACE", worker::CONTAINERD_NAMESPACE);
    inside.env("PATH", worker::path_with(&cluster.programs)?);
    become_program(&mut inside)
}

/// Its terminal, its exit status and its signals are the caller's.
fn become_program(command: &mut Command) -> Result<ExitCode> {
    let error = command.exec();
    bail!("cannot run {}: {error}", command.get_program().to_string_lossy())
}
