//! A Service as a person names it, and what the API server says of it.

use std::net::{IpAddr, SocketAddr};

use crate::kubernetes::{self, FoundService, SeenEndpoint};
use crate::plugin::access::Session;
use crate::plugin::destination::{self, Destination};
use crate::plugin::error::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    name: String,
    /// `None`: where the person is.
    namespace: Option<String>,
    /// Its number or its name; `None`: each.
    port: Option<String>,
}

/// What the API server has.
pub(super) struct Known {
    /// How a proxy is asked for the same.
    pub(super) question: String,
    /// Of the ports that are asked for, each with the port of the Service that leads there.
    pub(super) endpoints: Vec<(Option<u16>, SeenEndpoint)>,
}

/// `svc/NAME`, `NAME` or `NAME.NAMESPACE`, and what else a name of a Service may have; with `:PORT` for one port.
pub(super) fn parse(text: &str) -> Result<Asked, String> {
    let has_port = text.contains(':');
    let whole = if has_port {
        text.to_owned()
    } else {
        format!("{text}:0")
    };
    match destination::parse(&whole) {
        Ok(Destination::Service {
            name,
            namespace,
            port,
        }) => Ok(Asked {
            name,
            namespace,
            port: Some(port).filter(|_| has_port),
        }),
        _ => Err(format!(
            "`{}` is no Service: write svc/NAME, NAME or NAME.NAMESPACE, with :PORT for one port of it",
            text.escape_debug()
        )),
    }
}

impl Asked {
    pub(super) fn name(&self, here: &str) -> String {
        format!("{}/{}", self.namespace.as_deref().unwrap_or(here), self.name)
    }

    pub(super) fn find(&self, session: &Session, here: &str) -> Result<Known, Error> {
        let (name, namespace) = (&self.name, self.namespace.as_deref().unwrap_or(here));
        let found = session.ask(kubernetes::find_service(session.client(), namespace, name))?;
        let found = found.ok_or_else(|| Error::NoService {
            name: name.clone(),
            namespace: namespace.to_owned(),
        })?;
        let seen = session.ask(kubernetes::seen_endpoints(session.client(), namespace, name))?;
        let known = known(
            &format!("{namespace}/{name}.{namespace}.{DOMAIN}"),
            &found,
            self.port.as_deref(),
            seen,
        );
        known.map_err(|reason| Error::Usage {
            reason: format!("the Service {name} of the namespace {namespace} {reason}"),
        })
    }
}

/// A headless Service has no address to ask for it by.
const DOMAIN: &str = "svc.cluster.local";

fn known(
    hostname: &str,
    service: &FoundService,
    port: Option<&str>,
    seen: Vec<SeenEndpoint>,
) -> Result<Known, String> {
    let is_meant =
        |(name, number): &&(String, u16)| port.is_none_or(|port| name == port || number.to_string() == port);
    let ports: Vec<&(String, u16)> = service.ports.iter().filter(is_meant).collect();
    if ports.is_empty() {
        let ports: Vec<String> = service
            .ports
            .iter()
            .map(|(name, number)| format!("{number} {name}"))
            .collect();
        return Err(format!(
            "has no port {}; it has {}",
            port.unwrap_or("at all"),
            ports.join(", ")
        ));
    }
    let address = service.addresses.first().copied();
    let one = ports
        .first()
        .map(|(_, number)| *number)
        .filter(|_| port.is_some());
    let question = match (address, one) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, Some(port)) => format!("{hostname}:{port}"),
        (None, None) => hostname.to_owned(),
    };
    // A proxy dials endpoints of the family of the address that is dialled, where there are any.
    let alike = |ip: IpAddr| address.is_none_or(|address| address.is_ipv4() == ip.is_ipv4());
    let has_alike = seen.iter().any(|one| alike(one.address.ip()));
    let endpoints = seen
        .into_iter()
        .filter(|one| alike(one.address.ip()) || !has_alike);
    let endpoints = endpoints.filter_map(|one| {
        let (_, number) = ports.iter().find(|(name, _)| *name == one.port)?;
        Some((Some(*number), one))
    });
    Ok(Known {
        question,
        endpoints: endpoints.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_as_kubectl_names_it() {
        let asked = |name: &str, namespace: Option<&str>, port: Option<&str>| {
            Ok(Asked {
                name: name.into(),
                namespace: namespace.map(String::from),
                port: port.map(String::from),
            })
        };
        assert_eq!(parse("svc/web"), asked("web", None, None));
        assert_eq!(parse("web:http"), asked("web", None, Some("http")));
        assert_eq!(
            parse("web.shop.svc.cluster.local:80"),
            asked("web", Some("shop"), Some("80"))
        );
        for wrong in ["10.0.0.1", "10.0.0.1:80", "shop/web", "", "We b"] {
            assert!(parse(wrong).unwrap_err().contains("svc/NAME"), "{wrong}");
        }
    }

    fn seen(address: &str, port: &str) -> SeenEndpoint {
        SeenEndpoint {
            address: address.parse().unwrap(),
            port: port.into(),
            is_ready: true,
            pod: None,
            node: None,
        }
    }

    #[test]
    fn a_proxy_is_asked_by_the_address_and_only_ports_that_are_meant_are_compared() {
        let service = FoundService {
            addresses: vec!["10.96.0.9".parse().unwrap()],
            ports: vec![("http".into(), 80), ("admin".into(), 81)],
        };
        let all = || {
            vec![
                seen("10.0.0.1:8080", "http"),
                seen("10.0.0.1:8081", "admin"),
                seen("[fd00::1]:8080", "http"),
            ]
        };
        let known = |service, port| known("shop/web.shop.svc", service, port, all());
        let one = known(&service, Some("http")).unwrap();
        assert_eq!(one.question, "10.96.0.9:80");
        assert_eq!(one.endpoints, [(Some(80), seen("10.0.0.1:8080", "http"))]);
        let every = known(&service, None).unwrap();
        assert_eq!((every.question.as_str(), every.endpoints.len()), ("10.96.0.9", 2));
        assert!(
            known(&service, Some("82"))
                .err()
                .unwrap()
                .contains("it has 80 http, 81 admin")
        );
        let headless = FoundService {
            addresses: Vec::new(),
            ..service.clone()
        };
        assert_eq!(
            known(&headless, Some("80")).unwrap().question,
            "shop/web.shop.svc:80"
        );
    }
}
