//! One Service as a person names it: where its clients go.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use super::{Client, Error};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FoundService {
    /// Of the Service itself; none where it is headless.
    pub addresses: Vec<IpAddr>,
    /// Name and number.
    pub ports: Vec<(String, u16)>,
    /// Of pods that are ready, with the numbers of their ports: where the clients of a headless Service go.
    pub endpoints: Vec<(IpAddr, Vec<(String, u16)>)>,
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
    let slices: Api<EndpointSlice> = Api::namespaced(client.inner(), namespace);
    let of_it = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
    let slices = slices.list(&of_it).await;
    let slices = slices.map_err(|source| Error::asked("list EndpointSlices", source))?;
    Ok(Some(read(found, slices.items)))
}

fn read(service: Service, slices: Vec<EndpointSlice>) -> FoundService {
    let spec = service.spec.unwrap_or_default();
    let ips = spec.cluster_ips.unwrap_or_default();
    let number = |port: i32| u16::try_from(port).unwrap_or_default();
    let ports = spec.ports.unwrap_or_default().into_iter();
    let mut endpoints = Vec::new();
    for slice in slices {
        let ports = slice.ports.unwrap_or_default();
        let ports: Vec<(String, u16)> = ports
            .into_iter()
            .filter_map(|port| Some((port.name.unwrap_or_default(), number(port.port?))))
            .collect();
        for endpoint in slice.endpoints.unwrap_or_default() {
            let is_ready = endpoint.conditions.and_then(|conditions| conditions.ready);
            if is_ready == Some(false) {
                continue;
            }
            let ips = endpoint.addresses.iter().filter_map(|ip| ip.parse().ok());
            endpoints.extend(ips.map(|ip| (ip, ports.clone())));
        }
    }
    FoundService {
        addresses: ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
        ports: ports
            .map(|port| (port.name.unwrap_or_default(), number(port.port)))
            .collect(),
        endpoints,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_headless_service_has_no_address_and_its_ready_pods_do() {
        let service = json!({ "spec": { "clusterIP": "None", "clusterIPs": ["None"], "ports": [{ "name": "http", "port": 80 }] } });
        let slice = json!({ "addressType": "IPv4", "ports": [{ "name": "http", "port": 8080 }], "endpoints": [
            { "addresses": ["10.0.0.9"], "conditions": { "ready": true } },
            { "addresses": ["10.0.0.8"], "conditions": { "ready": false } } ] });
        let found = read(
            serde_json::from_value(service).unwrap(),
            vec![serde_json::from_value(slice).unwrap()],
        );
        assert!(found.addresses.is_empty());
        assert_eq!(found.ports, [("http".to_owned(), 80)]);
        assert_eq!(
            found.endpoints,
            [("10.0.0.9".parse().unwrap(), vec![("http".to_owned(), 8080)])]
        );
    }
}
