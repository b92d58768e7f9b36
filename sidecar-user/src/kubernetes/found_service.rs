//! One Service as a person names it. Who stands behind it is `seen_endpoint.rs`'s.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::Api;

use super::{Client, Error};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundService {
    /// Of the Service itself; none where it is headless.
    pub addresses: Vec<IpAddr>,
    /// Name and number.
    pub ports: Vec<(String, u16)>,
}

/// `None`: there is none.
pub async fn find_service(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<FoundService>, Error> {
    let api: Api<Service> = Api::namespaced(client.inner(), namespace);
    let found = api.get_opt(name).await;
    let Some(found) = found.map_err(|source| Error::asked("show a Service", source))? else {
        return Ok(None);
    };
    Ok(Some(read(found)))
}

fn read(service: Service) -> FoundService {
    let spec = service.spec.unwrap_or_default();
    let ips = spec.cluster_ips.unwrap_or_default();
    let number = |port: i32| u16::try_from(port).unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().into_iter();
    FoundService {
        addresses: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        ports: ports
            .map(|port| (port.name.unwrap_or_default(), number(port.port)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_headless_service_has_ports_and_no_address() {
        let service = json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "name": "http", "port": 80 }] } });
        let found = read(serde_json::from_value(service).unwrap());
        assert!(found.addresses.is_empty());
        assert_eq!(found.ports, [("http".to_owned(), 80)]);
    }
}
