//! What has to hold of a query of the admin endpoint, and of the host that a caller names.

use std::net::{IpAddr, SocketAddr};

use super::admin::is_loopback_host;
use super::endpoints::EndpointsQuestion;
use super::filter::Query;
use super::of_pod::OfPod;
use super::policies::PoliciesQuestion;
use super::why::{Protocol, Question};

/// The same text as the query of each path, and as a `Host` header.
pub(crate) fn query(text: &str) -> Result<String, String> {
    if is_loopback_host(text) {
        let name = text
            .rsplit_once(':')
            .map_or(text, |(name, port)| match port.parse::<u16>() {
                Ok(_) => name,
                Err(_) => text,
            });
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let loopback = name
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback());
        assert!(loopback || name.eq_ignore_ascii_case("localhost"), "{text}");
    }
    let flows = Query::parse(text).map(drop);
    let why = Question::parse(text).map(|question| {
        assert_eq!(Question::parse(&written(&question)), Ok(question));
    });
    let endpoints = EndpointsQuestion::parse(text).map(|question| {
        assert_eq!(
            EndpointsQuestion::parse(&format!("service={question}")),
            Ok(question)
        );
    });
    let policies = PoliciesQuestion::parse(text).map(|question| {
        assert_eq!(PoliciesQuestion::parse(&asked(&question)), Ok(question));
    });
    // An agent takes the pod out, and what is left means the same to the proxy.
    let of_pod = OfPod::parse(text);
    let again = OfPod::parse(&of_pod.rest);
    assert_eq!((&again.pod, &again.rest), (&None, &of_pod.rest));
    if of_pod.pod.is_none() {
        assert_eq!(
            EndpointsQuestion::parse(&of_pod.rest).ok(),
            EndpointsQuestion::parse(text).ok()
        );
    }
    // Taken when one of the paths takes it; a query of one is refused by the others.
    flows.or(why).or(endpoints).or(policies)?;
    Ok(String::new())
}

fn written(question: &Question) -> String {
    let protocol = match question.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    };
    let mut query = format!("protocol={protocol}");
    query += &match question.destination {
        Some(ip) => format!("&destination={}", SocketAddr::new(ip, question.port)),
        None => format!("&port={}", question.port),
    };
    if let Some(ip) = question.source {
        query += &format!("&source={ip}");
    }
    if let Some(id) = &question.identity {
        query += &format!("&identity={id}");
    }
    query
}

fn asked(question: &PoliciesQuestion) -> String {
    let mut query = String::new();
    if let Some(from) = &question.from {
        query += &format!("from={from}");
    }
    if let Some(port) = question.port {
        query += &format!("&port={port}");
    }
    if let Some(ip) = question.address {
        query += &format!("&address={ip}");
    }
    query
}
