//! `ca status` and `ca rotate`: how the root is replaced while everything runs, step by step. `ca request` is in `request.rs`.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use super::request::Request;
use super::table::until;
use crate::control::kept::Kept;
use crate::control::secret::rotate;
use crate::issuer::rotation::{self, Phase, Status};
use crate::kubernetes::Client;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Shows the roots, and how far a rotation has come
    Status {
        #[command(flatten)]
        place: Place,
    },
    /// Takes a step of replacing the root: begin, switch, finish; or abort
    ///
    /// `begin` makes a second root and gives both out; `switch` lets it sign; `finish` takes the old one away; `abort`
    /// takes a step back. A running control process notices by itself. Each step refuses to come before everybody can have
    /// followed the one before, and says when it may; `ca status` shows it, too.
    Rotate {
        step: Step,
        #[command(flatten)]
        place: Place,
        /// Takes the step now; workloads that have not followed are cut off until their next renewal
        #[arg(long)]
        force: bool,
    },
    /// Asks an authority for a certificate as a sidecar does, says what came of it, and throws it away
    ///
    /// Exits with 1 where none was signed, and says why: the authority is not reached, is not who it should be, refuses the token, or
    /// signs what no peer would take.
    Request(Request),
}

/// Where the authority is kept.
#[derive(Debug, Args)]
pub struct Place {
    /// The CA's state directory
    #[arg(
        long = "state-dir",
        value_name = "DIR",
        required_unless_present = "kubernetes"
    )]
    dir: Option<PathBuf>,
    /// The namespace of `outrigger control` in a cluster, whose Secret outrigger-ca has the CA; in its pod it is known
    #[arg(long, value_name = "NAMESPACE", env = "OUTRIGGER_KUBERNETES")]
    kubernetes: Option<String>,
    /// By which the API server is asked, by its current context [default: as the service account of this pod]
    #[arg(long, value_name = "FILE", requires = "kubernetes", conflicts_with = "dir")]
    kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Step {
    Begin,
    Switch,
    Finish,
    Abort,
}

pub(super) fn run(verb: Verb) -> anyhow::Result<()> {
    let (place, step) = match verb {
        Verb::Request(request) => return request.run(),
        Verb::Status { place } => (place, None),
        Verb::Rotate { step, place, force } => {
            let step = match step {
                Step::Begin => rotation::Step::Begin,
                Step::Switch => rotation::Step::Switch,
                Step::Finish => rotation::Step::Finish,
                Step::Abort => rotation::Step::Abort,
            };
            (place, Some((step, force)))
        }
    };
    let now = SystemTime::now();
    let not_further = "the root is not replaced further";
    // Who names a directory means it, also in the pod of a control process.
    let (status, hint) = match &place.dir {
        Some(dir) => {
            let status = match step {
                None => rotation::status(dir)?,
                Some((step, force)) => rotation::take(dir, step, force, now).context(not_further)?,
            };
            (
                status,
                "put root-cert.pem into every file that identity.roots names before finish",
            )
        }
        None => {
            let status = in_cluster(&place, step);
            let status = if step.is_some() {
                status.context(not_further)
            } else {
                status
            };
            (
                status?,
                "the control process keeps the roots in the ConfigMap outrigger-ca",
            )
        }
    };
    print!("{}", shown(&status, hint, now));
    Ok(())
}

fn in_cluster(place: &Place, step: Option<(rotation::Step, bool)>) -> anyhow::Result<Status> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime of this command")?;
    runtime.block_on(async {
        let kept = Kept {
            client: match &place.kubeconfig {
                Some(path) => Client::by_kubeconfig(path).await?,
                None => Client::in_cluster()?,
            },
            namespace: place
                .kubernetes
                .clone()
                .context("--kubernetes: name a namespace")?,
        };
        match step {
            None => rotate::status(&kept).await,
            Some((step, force)) => rotate::take(&kept, step, force).await,
        }
    })
}

fn shown(status: &Status, hint: &str, now: SystemTime) -> String {
    let mut text = format!("{}\n", status.phase.words());
    for (n, root) in status.roots.iter().enumerate() {
        let role = if n == 0 { "signs" } else { "is trusted" };
        text += &format!(
            "root {}… {role}, ends {}\n",
            root.fingerprint,
            until(root.ends, now)
        );
    }
    text += &match status.leaves_end > now {
        true => format!(
            "certificates of workloads end {} at the latest\n",
            until(status.leaves_end, now)
        ),
        false => "no certificate of a workload lives\n".to_owned(),
    };
    for (step, from) in &status.steps {
        text += &match *from > now {
            _ if *step == rotation::Step::Switch && status.unpublished => {
                "switch is possible once the control process has published both roots\n".to_owned()
            }
            true => format!("{} is possible {}\n", step.name(), until(*from, now)),
            false => format!("{} is possible now\n", step.name()),
        };
    }
    if status.phase != Phase::Steady {
        text += &format!("{hint}\n");
    }
    text
}
