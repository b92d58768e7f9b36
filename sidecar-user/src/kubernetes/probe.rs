//! The ports of a pod that the kubelet asks by itself: probes and hooks of its containers, by number or by the name of a port. One
//! that names another host is not the pod's.

use std::collections::BTreeSet;

use serde::Deserialize;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    env: Vec<Variable>,
    ports: Vec<ContainerPort>,
    liveness_probe: Option<Handler>,
    readiness_probe: Option<Handler>,
    startup_probe: Option<Handler>,
    lifecycle: Option<Lifecycle>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Variable {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    name: Option<String>,
    container_port: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Lifecycle {
    post_start: Option<Handler>,
    pre_stop: Option<Handler>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Handler {
    http_get: Option<Target>,
    tcp_socket: Option<Target>,
    grpc: Option<Target>,
}

#[derive(Clone, Debug, Deserialize)]
struct Target {
    port: Port,
    host: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Port {
    Number(i64),
    Name(String),
}

impl Container {
    /// Whether it is given a variable of this name. Nobody can change that of a pod that is there.
    pub(super) fn has_variable(&self, name: &str) -> bool {
        self.env.iter().any(|variable| variable.name == name)
    }

    pub(super) fn probe_ports(&self) -> BTreeSet<u16> {
        let hooks = self
            .lifecycle
            .iter()
            .flat_map(|hooks| [&hooks.post_start, &hooks.pre_stop]);
        let probes = [&self.liveness_probe, &self.readiness_probe, &self.startup_probe];
        let handlers = probes.into_iter().chain(hooks).flatten();
        let targets = handlers.flat_map(|handler| [&handler.http_get, &handler.tcp_socket, &handler.grpc]);
        let of_pod = targets
            .flatten()
            .filter(|target| target.host.as_deref().unwrap_or_default().is_empty());
        of_pod.filter_map(|target| self.number(&target.port)).collect()
    }

    /// `None`: it has no such port, and the kubelet finds none either.
    fn number(&self, port: &Port) -> Option<u16> {
        let number = match port {
            Port::Number(number) => *number,
            Port::Name(name) => match self.ports.iter().find(|port| port.name.as_ref() == Some(name)) {
                Some(port) => port.container_port,
                // A number as text, which the API takes for a number too.
                None => name.parse().ok()?,
            },
        };
        u16::try_from(number).ok().filter(|port| *port != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(container: &str) -> Vec<u16> {
        let container: Container = serde_json::from_str(container).unwrap();
        container.probe_ports().into_iter().collect()
    }

    #[test]
    fn every_kind_of_probe_and_hook_is_asked_at_its_port() {
        assert_eq!(
            ports(
                r#"{"name":"a","livenessProbe":{"tcpSocket":{"port":1}},"readinessProbe":{"httpGet":{"path":"/","port":2}},
                    "startupProbe":{"grpc":{"port":3,"service":null}},
                    "lifecycle":{"postStart":{"httpGet":{"port":4}},"preStop":{"exec":{"command":["x"]}}}}"#
            ),
            [1, 2, 3, 4]
        );
        assert!(ports(r#"{"name":"a","livenessProbe":{"exec":{"command":["x"]}}}"#).is_empty());
    }

    #[test]
    fn a_named_port_is_that_of_its_container_and_one_of_another_host_is_nobodys() {
        let named = |port: &str| {
            ports(&format!(
                r#"{{"name":"a","ports":[{{"containerPort":80}},{{"name":"web","containerPort":8080}}],
                    "livenessProbe":{{"httpGet":{{"port":{port}}}}}}}"#
            ))
        };
        assert_eq!(named(r#""web""#), [8080]);
        assert_eq!(named(r#""81""#), [81]);
        for none in [r#""other""#, "0", "65536", "-1", r#"80,"host":"10.0.0.1""#] {
            assert!(named(none).is_empty(), "{none}");
        }
        assert_eq!(named(r#"80,"host":"""#), [80]);
    }
}
