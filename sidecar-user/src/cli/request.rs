//! `ca request`: asks an authority for a certificate as a sidecar does, says what came of it, and throws it away. Attaches nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use clap::Args;
use tokio::sync::watch;
use tokio::time::sleep;

use super::table::until;
use crate::error_chain;
use crate::identity::{self, Ask, Source, Status, Svid, Way};
use crate::model::SpiffeId;

/// Asked for, and the authority may give less.
const LIFE: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug, Args)]
pub struct Request {
    // Not a comment of the documentation, which would make a link of the address.
    #[arg(
        long,
        value_name = "URL",
        help = "The certificate service, such as https://outrigger-control-replicas.outrigger-system.svc:15012"
    )]
    authority: String,
    /// The name in its certificate [default: the host of the authority]
    #[arg(long = "authority-name", value_name = "NAME")]
    server_name: Option<String>,
    /// PEM bundle that its certificate chains to
    #[arg(long = "authority-roots", value_name = "FILE")]
    roots: PathBuf,
    /// File with the token that proves the identity
    #[arg(long, value_name = "FILE")]
    token: PathBuf,
    /// Such as spiffe://cluster.local/ns/demo/sa/client
    #[arg(long, value_name = "SPIFFE-ID")]
    identity: SpiffeId,
    /// How long it is asked again after a failure, such as 60s [default: it is asked once]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, default_value = "0s", hide_default_value = true)]
    wait: Duration,
}

impl Request {
    /// An error says why there is none: the last answer.
    pub(super) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime of this command")?;
        let authority = self.authority.clone();
        let svid = runtime.block_on(self.ask())?;
        print!("{}", shown(&authority, &svid, SystemTime::now()));
        Ok(())
    }

    async fn ask(self) -> anyhow::Result<Arc<Svid>> {
        let wait = self.wait;
        let config = identity::Config {
            id: self.identity,
            source: Source::Authority(Ask {
                authority: self.authority,
                server_name: self.server_name,
                roots: self.roots,
                token: self.token,
                cluster: "Kubernetes".to_owned(),
                ttl: LIFE,
                refresh: LIFE,
            }),
        };
        let (publish, mut published) = watch::channel(None::<Arc<Svid>>);
        let (tell, status) = watch::channel(Status::default());
        // Nothing of this process is intercepted.
        let way = Way::Network(Arc::new(|_| Ok(())));
        tokio::select! {
            ended = identity::keep(config, way, publish, tell) => match ended {
                Ok(never) => match never {},
                Err(error) => bail!("{}", error_chain(&error)),
            },
            Ok(svid) = published.wait_for(Option::is_some) => svid.clone().context("there is no certificate"),
            why = failure_after(wait, status) => bail!("{why}"),
        }
    }
}

/// Why the newest attempt has failed, once the time for more of them is over.
async fn failure_after(wait: Duration, mut status: watch::Receiver<Status>) -> String {
    sleep(wait).await;
    let failed = status.wait_for(|status| status.last_error.is_some()).await;
    failed
        .ok()
        .and_then(|status| status.last_error.clone())
        .unwrap_or_default()
}

fn shown(authority: &str, svid: &Svid, now: SystemTime) -> String {
    format!(
        "{authority} has signed a certificate\nidentity  {}\nserial    {}\nends      {}\nroots     {}\n",
        svid.id(),
        svid.serial(),
        until(svid.not_after(), now),
        svid.roots().len(),
    )
}
