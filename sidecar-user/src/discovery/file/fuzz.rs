//! What has to hold of a registry, whatever its text.

use std::net::SocketAddr;

use super::parse;
use crate::model::Snapshot;

/// A registry that is taken means the same when it is read again, and every address leads to who has it.
pub(crate) fn registry(text: &str) -> Result<String, String> {
    let registry = parse(text, &Snapshot::default()).map_err(|problems| problems.to_string())?;
    let snapshot = &registry.snapshot;
    for (ip, workload) in snapshot.addresses() {
        assert!(workload.addresses.contains(ip), "{ip} of {}", workload.uid);
        let found = snapshot.workload_by_address(*ip).map(|(found, _)| &found.uid);
        assert_eq!(found, Some(&workload.uid), "{ip}");
    }
    for (service, endpoints) in snapshot.services() {
        for vip in &service.vips {
            assert!(snapshot.is_vip(*vip), "{vip}");
            for port in service.ports.keys() {
                let at = SocketAddr::new(*vip, *port);
                let found = snapshot.service_at(at).map(|(found, _)| &found.name);
                assert_eq!(found, Some(&service.name), "{at}");
            }
        }
        assert!(endpoints.iter().all(|e| e.ports.keys().all(|port| *port != 0)));
    }
    let again = parse(text, snapshot).expect("it was taken before");
    assert_eq!(again.counts, registry.counts);
    assert_eq!(again.warnings, registry.warnings);
    let warnings: Vec<String> = registry.warnings.iter().map(ToString::to_string).collect();
    Ok(format!("{}\n{}", registry.counts, warnings.join("\n")))
}
