//! `cargo xtask cluster demo`: the bookstore of `deploy/examples` on the cluster, as a newcomer would install it, and what `kubectl
//! outrigger` shows of it. Tests nothing (`tests/cluster/bookstore.rs` does), and leaves the cluster up.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::cluster::{Cluster, Mesh, bookstore, istio};
use harness::interrupt::Interrupts;
use harness::wait;

use super::{sweep, up};
use crate::progress::during;
use crate::workspace::{self, announce};

/// A rate of fewer connections is chance, and the picture shows none.
const ORDERS: u64 = 20;

/// For so many, at two a second, once everything has started.
const SOLD: Duration = Duration::from_secs(60);

pub(super) fn run() -> Result<ExitCode> {
    let begun = Instant::now();
    announce("the programs and images of the cluster; minutes the first time, nothing afterwards");
    let parts = during("they are built", super::build)?;
    let cluster = match Cluster::find()?.filter(super::is_alive) {
        Some(cluster) => {
            announce("the cluster that is up already");
            cluster
        }
        None => {
            // Ctrl-C takes away what this has brought up, and nothing else.
            let _interrupts = Interrupts::handle_with(sweep::remove)?;
            announce("a cluster of two nodes; 15 s, up to 40 s beside other work");
            during("two nodes start", || up::bring_up(&parts))?.keep();
            Cluster::demand()?
        }
    };
    announce("Outrigger, by its chart; about 15 s");
    let mesh = during("agents and control start", || Mesh::install(&cluster))?;
    announce("the bookstore: deploy/examples/bookstore, about 20 s");
    during("its pods start", || start(&mesh))?;
    announce(&format!("customers, until {ORDERS} books are sold; about 15 s"));
    during("books are sold", || {
        wait::until("books are sold", SOLD, || {
            orders(&mesh).is_some_and(|sold| sold >= ORDERS)
        })
    })?;
    let picture = show(&cluster)?;
    announce(&format!("shown after {} s", begun.elapsed().as_secs()));
    say_what_next(&picture);
    Ok(ExitCode::SUCCESS)
}

/// As `deploy/examples/bookstore/README.md` says it.
fn start(mesh: &Mesh<'_>) -> Result<()> {
    let kubectl = mesh.kubectl();
    istio::install(kubectl)?;
    kubectl.apply(&[bookstore::namespace(kubectl)?])?;
    let mut objects = bookstore::policies(kubectl)?;
    objects.extend(bookstore::workloads(kubectl)?);
    for object in &mut objects {
        object["metadata"]["namespace"] = bookstore::NAME.into();
    }
    // A pod without a service account is refused, and the account of a new namespace is made by a controller.
    wait::until("the service account of the bookstore", wait::SOON, || {
        let account = ["--namespace", bookstore::NAME, "serviceaccount", "default"];
        kubectl.get(&account).is_ok()
    })?;
    kubectl.apply(&objects)?;
    for object in &objects {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let (what, condition) = match object["kind"].as_str() {
            Some("Deployment") => (format!("deployment/{name}"), "condition=Available"),
            Some("StatefulSet") => (format!("pod/{name}-0"), "condition=Ready"),
            Some("Job") => (format!("job/{name}"), "condition=Complete"),
            _ => continue,
        };
        wait::until(&format!("{what} is there"), wait::SOON, || {
            kubectl.get(&["--namespace", bookstore::NAME, &what]).is_ok()
        })?;
        kubectl.wait(bookstore::NAME, &what, condition)?;
    }
    Ok(())
}

/// How many are in the database.
fn orders(mesh: &Mesh<'_>) -> Option<u64> {
    let count = [
        "psql",
        "--host=127.0.0.1",
        "--username=postgres",
        "--tuples-only",
        "--no-align",
        "--command=SELECT count(*) FROM orders",
    ];
    let said = mesh.kubectl().exec(bookstore::NAME, "orders-0", &count).ok()?;
    said.stdout.trim().parse().ok()
}

/// The table on the terminal, the picture into a file.
fn show(cluster: &Cluster) -> Result<PathBuf> {
    println!();
    super::use_the_programs_of_the_image();
    let table = edges(cluster, &[])?.status().context("start kubectl outrigger")?;
    ensure!(table.success(), "kubectl outrigger edges: {table}");
    let path = workspace::target_dir().join(super::CACHE).join("bookstore.svg");
    let new = path.with_extension("svg.new");
    let file = File::create(&new).with_context(|| format!("write {}", new.display()))?;
    let mut picture = edges(cluster, &["--output=svg"])?;
    let drawn = picture.stdout(file).status().context("start kubectl outrigger")?;
    ensure!(drawn.success(), "kubectl outrigger edges --output svg: {drawn}");
    fs::rename(&new, &path).with_context(|| format!("write {}", path.display()))?;
    println!();
    Ok(path)
}

fn edges(cluster: &Cluster, more: &[&str]) -> Result<Command> {
    let mut command = cluster.plugin().command()?;
    command.args(["edges", "--namespace", bookstore::NAME]).args(more);
    Ok(command)
}

fn say_what_next(picture: &Path) {
    println!(
        "\nThe picture of it: {}\n\nTry, in this directory:\n",
        picture.display()
    );
    for (what, line) in [
        (
            "each connection, and how it went",
            "outrigger flows --namespace bookstore",
        ),
        (
            "plaintext at the port that takes it",
            "kubectl exec --namespace bookstore deploy/monitor -- curl -sS http://catalog-pods:9113/metrics",
        ),
        (
            "the same pods, a strict port: refused",
            "kubectl exec --namespace bookstore deploy/monitor -- curl -sS http://catalog-pods:8080/books.json",
        ),
        (
            "no customer of the catalog's: refused",
            "kubectl exec --namespace bookstore deploy/customer -- curl -sS http://catalog:8080/books.json",
        ),
        (
            "and now again: who was refused, and why",
            "outrigger edges --namespace bookstore",
        ),
    ] {
        println!("  # {what}\n  cargo xtask cluster {line}");
    }
    println!("\nIt is up until you take it down:\n\n  cargo xtask cluster down\n");
}
