//! The webhook that injects, as a part of the control process: its port, its figures and its condition of readiness.

use anyhow::Context;
use tokio::net::TcpListener;

use crate::kubernetes::Client;
use crate::observe::{Figure, Observer};
use crate::webhook::{self, Webhook};

/// Served by what is returned.
pub(super) fn open(
    config: &webhook::Config,
    listener: TcpListener,
    observer: &Observer,
) -> anyhow::Result<impl Future<Output = Result<(), webhook::Error>> + use<>> {
    let client = Client::in_cluster().context("webhook: the API server has to be told of it")?;
    let webhook = Webhook::new(config, &client)?;
    let counts = webhook.counts();
    observer.figures(move || {
        let help = "Pods that the webhook was asked about, by what became of them";
        vec![Figure::counter("outrigger_webhook_reviews", help).by("result", counts.read())]
    });
    // The Service sends nobody here whom the API server would not believe.
    const UNTRUSTED: &str = "the API server does not trust this webhook yet; the log says why";
    let condition = observer.readiness().condition("webhook", UNTRUSTED);
    // Once it does it goes on, whether it can be asked or not.
    Ok(webhook.serve(listener, move || condition.met()))
}
