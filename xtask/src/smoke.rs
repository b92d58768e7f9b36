//! The smoke run: a few end-to-end tests with the programs as they are shipped. All others run the dev profile, which
//! differs in optimisation, overflow checks and linking.

use anyhow::{Context, Result, ensure};

use crate::test::run_cargo;
use crate::totals::Totals;
use crate::workspace::{self, announce};

/// Each takes a second or two, and together they pass through every room: both walks, what a stream's ends become, who
/// is let in, what a stranger can do to the log, and what the kernel keeps.
const TESTS: [&str; 9] = [
    "reach::a_service_is_reached_by_its_virtual_addresses",
    "connect::a_port_that_nobody_listens_on_refuses_connect_itself",
    "streams::a_reset_by_the_server_reaches_the_client_as_a_reset",
    "streams::a_mebibyte_arrives_bit_for_bit",
    "identity::a_client_without_identity_sends_nothing_to_the_mesh",
    "modes::a_strict_workload_refuses_plaintext_and_serves_the_mesh",
    "policy::a_policy_holds_on_every_address_of_the_pod_through_tunnels_and_in_plaintext",
    "log::a_log_that_nobody_reads_holds_up_neither_traffic_nor_probes_nor_the_end",
    "cleanup::a_stopped_sidecar_leaves_its_pod_as_it_was",
];

pub(crate) fn run() -> Result<Totals> {
    let built = workspace::build_release(&[workspace::PROGRAM])?;
    announce("smoke run of what was built");
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "test",
            "--package",
            "outrigger-tests",
            "--test",
            "e2e",
            "--no-fail-fast",
            "--",
            "--exact",
        ])
        .args(TESTS)
        .env("OUTRIGGER_BIN_DIR", built);
    let totals = run_cargo(cargo).context("the smoke run")?;
    let run = totals.passed + totals.failed + totals.skipped;
    ensure!(
        run == TESTS.len() as u64,
        "the smoke run names {} tests and found {run}: one has another name now; see xtask/src/smoke.rs",
        TESTS.len()
    );
    Ok(totals)
}
