//! What an application can observe of its sockets is the same with and without Outrigger.
//!
//! `outrigger-truth` prints facts, and here they are compared: those of a pair of bare pods with those of every kind
//! of pair that has a sidecar. From the environment:
//!
//! * `OUTRIGGER_TRUTH`: parts of the names of the cases to run, apart by spaces; all when it is not set
//! * `OUTRIGGER_TRUTH_PATIENCE`: seconds to wait for what should happen; more on a slow machine
//! * `OUTRIGGER_TRUTH_FACTS`: a directory to keep the facts of every pair in

#[path = "truth/compare.rs"]
mod compare;
#[path = "truth/exceptions.rs"]
mod exceptions;
#[path = "truth/place.rs"]
mod place;

use std::sync::OnceLock;

use anyhow::{Result, anyhow, ensure};

use compare::differences;
use exceptions::{CLIENT, Exception, SERVER};
use place::{Pair, Place, Side};

#[test]
fn the_truth_of_bare_pods_is_the_same_every_time() -> Result<()> {
    let first = bare()?;
    let stopped = compare::stopped(first);
    ensure!(
        stopped.is_empty(),
        "halves gave up without Outrigger: {stopped:#?}"
    );
    let again = Place::build("truth-again", Pair::default())?.facts(&only())?;
    let account = differences(first, &again, &[]);
    ensure!(account.is_empty(), "\n{account}");
    Ok(())
}

#[test]
fn an_application_cannot_notice_the_mesh() -> Result<()> {
    same("truth-mesh", Side::Meshed, Side::Meshed, &[CLIENT, SERVER])
}

#[test]
fn an_application_cannot_notice_a_sidecar_on_its_way_out_of_the_mesh() -> Result<()> {
    same("truth-out", Side::Meshed, Side::Bare, &[CLIENT])
}

#[test]
fn an_application_cannot_notice_a_sidecar_before_a_client_outside_the_mesh() -> Result<()> {
    same("truth-in", Side::Bare, Side::Meshed, &[SERVER])
}

#[test]
fn a_process_of_the_node_dials_a_pod_as_ever() -> Result<()> {
    same_from("truth-node-in", Side::Node, Side::Meshed, &[SERVER])
}

#[test]
fn a_pod_dials_a_process_of_the_node_as_ever() -> Result<()> {
    same_from("truth-node-out", Side::Meshed, Side::Node, &[CLIENT])
}

/// Compares with a pair of bare pods.
fn same(kind: &str, client: Side, server: Side, exceptions: &[&[Exception]]) -> Result<()> {
    let here = Place::build(kind, Pair { client, server })?.facts(&only())?;
    report(bare()?, &here, exceptions)
}

/// Compares with a pair that differs in nothing but the sidecar.
fn same_from(kind: &str, client: Side, server: Side, exceptions: &[&[Exception]]) -> Result<()> {
    let without = |side| if side == Side::Meshed { Side::Bare } else { side };
    let bare = Pair {
        client: without(client),
        server: without(server),
    };
    // The node has no routing of a pod; what fails there is of the pods' pairs.
    let only = ["names/", "close/", "reset/", "bind/", "bulk/sizes"].map(String::from);
    let bare = Place::build(&format!("{kind}-bare"), bare)?.facts(&only)?;
    let here = Place::build(kind, Pair { client, server })?.facts(&only)?;
    report(&bare, &here, exceptions)
}

fn report(bare: &[String], here: &[String], exceptions: &[&[Exception]]) -> Result<()> {
    ensure!(!bare.is_empty(), "no case has such a name");
    let account = differences(bare, here, &exceptions.concat());
    ensure!(account.is_empty(), "an application notices:\n{account}");
    Ok(())
}

/// The facts of two bare pods, found out once.
fn bare() -> Result<&'static [String]> {
    static BARE: OnceLock<Result<Vec<String>, String>> = OnceLock::new();
    let facts = BARE.get_or_init(|| {
        let place = Place::build("truth-bare", Pair::default());
        place
            .and_then(|place| place.facts(&only()))
            .map_err(|error| format!("{error:#}"))
    });
    facts.as_deref().map_err(|error| anyhow!("{error}"))
}

fn only() -> Vec<String> {
    let only = std::env::var("OUTRIGGER_TRUTH").unwrap_or_default();
    only.split_ascii_whitespace().map(String::from).collect()
}
