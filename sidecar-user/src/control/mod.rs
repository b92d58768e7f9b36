//! ROLE: the control process. Today it is the embedded CA.
//!
//! It assembles `issuer/` and watches for the signals that end it; it decides nothing.

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::issuer::{self, Ca, Tokens};

#[cfg(test)]
mod tests;

#[derive(Clone, Debug)]
pub struct Config {
    pub issuer: issuer::Config,
}

/// Serves until SIGTERM or SIGINT, then lets calls under way end.
pub fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime of the control process")?;
    runtime.block_on(serve(config.issuer))
}

async fn serve(config: issuer::Config) -> anyhow::Result<()> {
    // Before anything is announced: whoever waits for the line below may send a signal at once.
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM: the certificate service stops"),
            _ = interrupt.recv() => info!("SIGINT: the certificate service stops"),
        }
    };

    let ca = Arc::new(Ca::open(&config)?);
    let tokens = Tokens::open(&config.state_dir)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen: cannot listen on {}", config.listen))?;
    info!(
        address = %listener.local_addr().unwrap_or(config.listen),
        trust_domain = ca.trust_domain(),
        root = %config.state_dir.join("root-cert.pem").display(),
        root_ends = %humantime::format_rfc3339_seconds(ca.ends()),
        "the certificate service listens"
    );
    issuer::serve(&config, ca, tokens, listener, stop).await?;
    Ok(())
}
