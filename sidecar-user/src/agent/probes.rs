//! Lets the kubelet ask whether containers are well, past the proxy: from addresses of this node, at the ports that the pod
//! declares for that.

use std::collections::BTreeSet;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::caller::Home;
use super::pod::Pod;
use crate::datapath::Node;
use crate::pods::own_addresses;
use crate::{error_chain, host};

/// Before a failure is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// Tells the programs which addresses this node has, whenever those change. Never ends.
pub(super) async fn follow_addresses(node: Arc<Node>) {
    loop {
        let error = match follow_once(&node).await {
            Ok(never) => match never {},
            Err(error) => format!("{error:#}"),
        };
        tracing::warn!(
            error,
            "probes of the kubelet may be refused: the addresses of this node are not known"
        );
        sleep(AGAIN).await;
    }
}

async fn follow_once(node: &Node) -> anyhow::Result<std::convert::Infallible> {
    // Before the first look, so that what changes meanwhile is seen.
    let mut changes = host::Changes::watch()?;
    let mut told = None;
    loop {
        let found = addresses()?;
        if told.as_ref() != Some(&found) {
            node.set_host_addresses(&found)?;
            tracing::debug!(addresses = ?found, "the addresses of this node");
            told = Some(found);
        }
        while matches!(changes.next().await?, host::Change::Routes(_)) {}
    }
}

/// Those from which somebody else can be asked.
fn addresses() -> std::io::Result<BTreeSet<IpAddr>> {
    let all = own_addresses()?.into_iter();
    Ok(all.filter(|address| !address.is_loopback()).collect())
}

/// Tells the programs where a pod is asked, once that is known. Never ends.
pub(super) async fn follow_ports(pod: Arc<Pod>) {
    let Home::Container { known, .. } = &pod.sidecar else {
        return pending().await;
    };
    let mut known = known.clone();
    let mut told = None;
    loop {
        let found = known.borrow_and_update().clone();
        let ports = found.map(|pod| pod.probe_ports.clone());
        if let Some(ports) = ports.filter(|ports| told.as_ref() != Some(ports)) {
            match pod.node.set_probe_ports(&pod.target, &ports) {
                Ok(()) => told = Some(ports),
                Err(error) => tracing::warn!(
                    pod = pod.name,
                    error = error_chain(&error),
                    "probes of the kubelet are refused or answered by the proxy"
                ),
            }
        }
        if known.changed().await.is_err() {
            return pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pod has a loopback of its own, from which no node asks.
    #[test]
    fn loopback_is_no_address_of_the_node() {
        let all = own_addresses().unwrap();
        let found = addresses().unwrap();
        assert!(all.iter().any(IpAddr::is_loopback), "{all:?}");
        let others: BTreeSet<_> = all.into_iter().filter(|address| !address.is_loopback()).collect();
        assert_eq!(found, others);
    }
}
