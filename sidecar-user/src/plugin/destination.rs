//! Where a connection goes, as a person says it: an address, or the name of a Service, and a port.

use std::net::{IpAddr, SocketAddr};

use super::access::Session;
use super::error::Error;
use crate::kubernetes::{self, FoundService, SeenEndpoint};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    At(SocketAddr),
    Service {
        name: String,
        /// `None`: that of who connects.
        namespace: Option<String>,
        /// Its number or its name.
        port: String,
    },
}

pub(super) fn parse(text: &str) -> Result<Destination, String> {
    if let Ok(at) = text.parse() {
        return Ok(Destination::At(at));
    }
    let wrong = || {
        format!(
            "`{}`: write ADDRESS:PORT, such as 10.0.0.1:80 or [fd00::1]:80, or SERVICE:PORT, such as web:80 or web.shop:http",
            text.escape_debug()
        )
    };
    let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let name = name
        .strip_prefix("svc/")
        .or(name.strip_prefix("service/"))
        .unwrap_or(name);
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let mut parts = name.splitn(3, '.');
    let (name, namespace, rest) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let is_name =
        is_word(name) && name.parse::<IpAddr>().is_err() && !name.starts_with(|c: char| c.is_ascii_digit());
    let is_service = rest.is_none_or(|rest| rest == "svc" || rest.starts_with("svc."));
    if !is_name || !namespace.is_none_or(is_word) || !is_service || !is_word(port) {
        return Err(wrong());
    }
    Ok(Destination::Service {
        name: name.into(),
        namespace: namespace.map(String::from),
        port: port.into(),
    })
}

impl Destination {
    /// Where its clients connect to. `here`: the namespace of who connects.
    pub(super) fn resolve(&self, session: &Session, here: &str) -> Result<SocketAddr, Error> {
        let (name, namespace, port) = match self {
            Self::At(at) => return Ok(*at),
            Self::Service {
                name,
                namespace,
                port,
            } => (name, namespace.as_deref().unwrap_or(here), port),
        };
        let found = session.ask(kubernetes::find_service(session.client(), namespace, name))?;
        let found = found.ok_or_else(|| Error::NoService {
            name: name.clone(),
            namespace: namespace.to_owned(),
        })?;
        // Clients of a headless one dial its pods.
        let pods = match found.addresses.is_empty() {
            true => session.ask(kubernetes::seen_endpoints(session.client(), namespace, name))?,
            false => Vec::new(),
        };
        at(&found, &pods, port).map_err(|reason| Error::Usage {
            reason: format!("the Service {name} of the namespace {namespace} {reason}"),
        })
    }
}

fn at(service: &FoundService, pods: &[SeenEndpoint], port: &str) -> Result<SocketAddr, String> {
    let of = |ports: &[(String, u16)]| {
        let found = ports
            .iter()
            .find(|(name, number)| name == port || number.to_string() == port);
        found.map(|(_, number)| *number)
    };
    if let Some(address) = service.addresses.first() {
        return match of(&service.ports) {
            Some(port) => Ok(SocketAddr::new(*address, port)),
            None => {
                let ports: Vec<String> = service
                    .ports
                    .iter()
                    .map(|(name, number)| format!("{number} {name}"))
                    .collect();
                Err(format!("has no port {port}; it has {}", ports.join(", ")))
            }
        };
    }
    let Some(first) = pods.iter().find(|pod| pod.is_ready) else {
        return Err("is headless and has no pod that is ready: its name has no address, so no client gets as far as to connect".into());
    };
    let ip = first.address.ip();
    let mut ports = pods.iter().filter(|pod| pod.address.ip() == ip);
    let port = ports
        .find(|pod| pod.port == port || pod.address.port().to_string() == port)
        .map(|pod| pod.address.port())
        .or_else(|| port.parse().ok());
    port.map(|port| SocketAddr::new(ip, port))
        .ok_or_else(|| "has no port of this name".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_is_an_address_or_a_service_and_a_port() {
        let service = |name: &str, namespace: Option<&str>, port: &str| {
            Ok(Destination::Service {
                name: name.into(),
                namespace: namespace.map(String::from),
                port: port.into(),
            })
        };
        assert_eq!(
            parse("[fd00::1]:80"),
            Ok(Destination::At("[fd00::1]:80".parse().unwrap()))
        );
        assert_eq!(parse("web:80"), service("web", None, "80"));
        assert_eq!(parse("svc/web:http"), service("web", None, "http"));
        assert_eq!(
            parse("web.shop.svc.cluster.local:80"),
            service("web", Some("shop"), "80")
        );
        for wrong in [
            "web",
            "10.0.0.1",
            "10.0.0:80",
            "web.shop.example:80",
            "We b:80",
            ":80",
            "web:",
        ] {
            assert!(parse(wrong).unwrap_err().contains("SERVICE:PORT"), "{wrong}");
        }
    }

    #[test]
    fn a_headless_service_is_where_its_pods_are() {
        let mut service = FoundService {
            addresses: vec!["10.96.0.9".parse().unwrap()],
            ports: vec![("http".into(), 80)],
        };
        let mut pods = vec![SeenEndpoint {
            address: "10.0.0.9:8080".parse().unwrap(),
            port: "http".into(),
            is_ready: true,
            pod: None,
            node: None,
        }];
        assert_eq!(at(&service, &pods, "http"), Ok("10.96.0.9:80".parse().unwrap()));
        assert!(at(&service, &pods, "81").unwrap_err().contains("it has 80 http"));
        service.addresses.clear();
        assert_eq!(at(&service, &pods, "http"), Ok("10.0.0.9:8080".parse().unwrap()));
        assert_eq!(at(&service, &pods, "9090"), Ok("10.0.0.9:9090".parse().unwrap()));
        pods[0].is_ready = false;
        assert!(
            at(&service, &pods, "http")
                .unwrap_err()
                .contains("no pod that is ready")
        );
    }
}
