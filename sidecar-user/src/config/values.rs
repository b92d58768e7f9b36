//! What a value may be: each function takes what a user wrote and gives what a room needs, or says what is wrong
//! with it and what to write instead. Knows no field by name.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use crate::document::nearest;
use crate::model::SpiffeId;
use crate::model::identity::check_trust_domain;
use crate::observe::SocketPath;

/// The value, or what is wrong with it and the remedy.
pub(super) type Verdict<T> = Result<T, (String, String)>;

/// What the kernel side has room for.
const MAX_WORKERS: usize = crate::datapath::MAX_SHARDS;

/// One of a few fixed words.
pub(super) fn word<T: Copy>(words: &[(&str, T)]) -> impl Fn(&str) -> Verdict<T> {
    move |text| match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let remedy = match nearest(text, &names) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("write {}", names.join(" or ")),
            };
            Err((format!("`{text}` is not known here"), remedy))
        }
    }
}

pub(super) fn path(text: &str) -> Verdict<PathBuf> {
    non_empty(text).map(PathBuf::from)
}

pub(super) fn trust_domain(text: &str) -> Verdict<String> {
    match check_trust_domain(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(reason) => Err((
            format!("`{text}`: {reason}"),
            "write a name such as cluster.local".into(),
        )),
    }
}

pub(super) fn server_name(text: &str) -> Verdict<String> {
    match rustls::pki_types::ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err((
            format!("`{text}` is no host name or address"),
            "write one, without scheme and port".into(),
        )),
    }
}

/// A certificate's life. Renewal needs time within it, so a second is the least.
pub(super) fn lifetime(text: &str) -> Verdict<Duration> {
    match duration(text)? {
        short if short < Duration::from_secs(1) => Err((
            format!("`{text}` is too short for a certificate"),
            "write at least 1s; 24h is usual".into(),
        )),
        life => Ok(life),
    }
}

pub(super) fn duration(text: &str) -> Verdict<Duration> {
    humantime::parse_duration(text).map_err(|_| {
        (
            format!("`{text}` is no duration"),
            "write a number with its unit: 500ms, 5s, 24h".to_owned(),
        )
    })
}

pub(super) fn absolute(text: &str) -> Verdict<PathBuf> {
    let path = path(text)?;
    match path.is_absolute() {
        true => Ok(path),
        false => Err((
            format!("`{text}` is not an absolute path"),
            "begin it with /".into(),
        )),
    }
}

pub(super) fn non_empty(text: &str) -> Verdict<String> {
    match text.trim() {
        "" => Err((
            "the value is empty".into(),
            "write one, or remove the field".into(),
        )),
        _ => Ok(text.to_owned()),
    }
}

pub(super) fn id_segment(text: &str) -> Verdict<String> {
    match SpiffeId::new("td", text, "sa") {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err((
            format!("`{text}`: {}", error.reason),
            "write a name such as default".into(),
        )),
    }
}

/// Of a DNS name, as Kubernetes takes it for a namespace.
fn is_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What the names of Services end in.
pub(super) fn cluster_domain(text: &str) -> Verdict<String> {
    /// A DNS name has 253 characters, and in front of this stand the Service and its namespace, of 63 each, and `svc`.
    const MOST: usize = 253 - 2 * (63 + 1) - "svc.".len();
    let remedy = "write it as the kubelets have it (clusterDomain), such as cluster.local";
    match text.split('.').all(is_label) {
        false => Err((format!("`{text}` is no DNS name in small letters"), remedy.into())),
        true if text.len() > MOST => Err((
            format!("`{text}` is longer than {MOST} characters, so names of Services would be too long"),
            remedy.into(),
        )),
        true => Ok(text.to_owned()),
    }
}

/// A part of names that others make, with `/` and `~` between the parts.
pub(super) fn cluster_id(text: &str) -> Verdict<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    match (1..=253).contains(&text.len()) && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err((
            format!("`{text}` is no name of a cluster"),
            "write up to 253 letters, digits, `.`, `-` and `_`, such as Kubernetes".into(),
        )),
    }
}

pub(super) fn namespace(text: &str) -> Verdict<String> {
    match is_label(text) {
        true => Ok(text.to_owned()),
        false => Err((
            format!("`{text}` is no name of a namespace"),
            "write one such as istio-system".into(),
        )),
    }
}

pub(super) fn address(text: &str) -> Verdict<IpAddr> {
    match text.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) if !ip.is_unspecified() && !ip.is_multicast() => Ok(ip),
        _ => Err((
            format!("`{text}` is not the address of a host"),
            "write one such as 10.0.0.1 or fd00::1".into(),
        )),
    }
}

pub(super) fn port(text: &str) -> Verdict<u16> {
    match text.parse::<NonZeroU16>() {
        Ok(port) => Ok(port.get()),
        Err(_) => Err((
            format!("`{text}` is no port"),
            "write a number from 1 to 65535".into(),
        )),
    }
}

/// Over TCP the admin endpoint shows every flow and asks nobody who they are, so it never leaves the pod.
pub(super) fn admin(text: &str) -> Verdict<Option<SocketAddr>> {
    let remedy = || "write a loopback address and a port such as 127.0.0.1:15000, or none".to_owned();
    match text.parse::<SocketAddr>() {
        _ if text == "none" => Ok(None),
        Ok(address) if !address.ip().to_canonical().is_loopback() => {
            Err((format!("`{text}` can be reached from outside"), remedy()))
        }
        Ok(address) if address.port() == 0 => Err((format!("`{text}` has no port"), remedy())),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err((format!("`{text}` is no socket address"), remedy())),
    }
}

pub(super) fn admin_socket(text: &str) -> Verdict<Option<SocketPath>> {
    if text == "none" {
        return Ok(None);
    }
    let path = path(text)?;
    Ok(Some(SocketPath {
        path,
        is_required: true,
    }))
}

/// Metrics and probes of a process that has no pod to itself.
pub(super) fn status(text: &str) -> Verdict<Option<SocketAddr>> {
    let remedy = || "write an address and a port such as [::]:15014, or none".to_owned();
    match text.parse::<SocketAddr>() {
        _ if text == "none" => Ok(None),
        Ok(address) if address.port() == 0 => Err((format!("`{text}` has no port"), remedy())),
        Ok(address) => Ok(Some(address)),
        Err(_) => Err((format!("`{text}` is no socket address"), remedy())),
    }
}

pub(super) fn workers(text: &str) -> Verdict<usize> {
    match text.parse() {
        Ok(workers) if workers <= MAX_WORKERS => Ok(workers),
        _ => Err((
            format!("`{text}` is no number of threads"),
            format!("write 0 to {MAX_WORKERS}; 0 is one per core, two at most"),
        )),
    }
}

/// Bytes, in a unit: `48MiB`. What is less than a few tunnels need would stop everybody.
pub(super) fn memory(text: &str) -> Verdict<usize> {
    const LEAST: usize = 1 << 20;
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let bytes = units.iter().find_map(|(unit, shift)| {
        let number: usize = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    match bytes {
        Some(bytes) if bytes >= LEAST => Ok(bytes),
        Some(_) => Err((
            format!("`{text}` is too little to move bytes with"),
            "write 1MiB or more".into(),
        )),
        None => Err((
            format!("`{text}` is no size"),
            "write a whole number with KiB, MiB or GiB, such as 64MiB".into(),
        )),
    }
}

/// `https://host` or `https://host:port`, with nothing behind.
pub(super) fn authority(text: &str) -> Verdict<String> {
    let remedy = || "write https://host:port, such as https://10.99.0.1:15012".to_owned();
    let error = |what: &str| Err((format!("`{text}` {what}"), remedy()));
    let Ok(uri) = text.parse::<http::Uri>() else {
        return error("is no URL");
    };
    match uri.authority() {
        _ if uri.scheme_str() != Some("https") => error("does not begin with https://"),
        None => error("names no host"),
        Some(authority) if authority.as_str().contains('@') => error("names a user"),
        Some(authority)
            if authority.port().is_some() && authority.port_u16().is_none_or(|port| port == 0) =>
        {
            error("has no valid port")
        }
        Some(_) if uri.path() != "/" || uri.query().is_some() => error("has a path"),
        Some(_) => Ok(text.trim_end_matches('/').to_owned()),
    }
}
