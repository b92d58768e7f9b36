//! The headers of CONNECT and of its answer: `forwarded`, `proxy-status`. Values only, no streams.

use std::fmt;
use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, StatusCode};

/// Tells that the peer is an Outrigger; nothing but our own extensions may depend on it.
pub(super) const OUTRIGGER: &str = "outrigger";
const PROXY_STATUS: &str = "proxy-status";
const FORWARDED: &str = "forwarded";

/// Why a server answered CONNECT with something else than 200. Travels as RFC 9209 `proxy-status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The application does not listen on that port.
    ConnectionRefused,
    /// No route to the application.
    Unroutable,
    /// The application did not answer in time.
    TimedOut,
    /// Policy says no.
    Denied,
    /// Too many connections.
    LimitReached,
    /// The request itself is not one that can be served.
    BadRequest,
    /// The name or port is not one of this workload.
    UnknownDestination,
}

impl Refusal {
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::Denied => StatusCode::UNAUTHORIZED,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn token(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "connection_refused",
            Self::Unroutable => "destination_ip_unroutable",
            Self::TimedOut => "connection_timeout",
            Self::Denied => "connection_terminated",
            Self::LimitReached => "connection_limit_reached",
            Self::BadRequest => "http_request_error",
            Self::UnknownDestination => "destination_not_found",
        }
    }

    pub(super) fn header(self) -> (&'static str, HeaderValue) {
        let details = if self == Self::Denied {
            "; details=\"denied by policy\""
        } else {
            ""
        };
        let text = format!("outrigger; error={}{details}", self.token());
        (
            PROXY_STATUS,
            HeaderValue::try_from(text).expect("tokens are visible ASCII"),
        )
    }

    /// The cause in an answer, when the peer gave one that we know.
    pub(super) fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(PROXY_STATUS)?.to_str().ok()?;
        let token = value
            .split(';')
            .find_map(|p| p.trim().strip_prefix("error="))?
            .trim();
        [
            Self::ConnectionRefused,
            Self::Unroutable,
            Self::TimedOut,
            Self::Denied,
            Self::LimitReached,
            Self::BadRequest,
            Self::UnknownDestination,
        ]
        .into_iter()
        .find(|r| r.token() == token)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConnectionRefused => "connection refused by the application",
            Self::Unroutable => "no route to the application",
            Self::TimedOut => "no answer from the application",
            Self::Denied => "denied by policy",
            Self::LimitReached => "limit of connections reached",
            Self::BadRequest => "bad request",
            Self::UnknownDestination => "unknown destination",
        })
    }
}

/// RFC 7239 `forwarded: for="ip:port";host=name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// The client that opened the connection. A claim of the peer, to be believed only with reason.
    pub client: Option<SocketAddr>,
    /// The service that the client dialled.
    pub host: Option<String>,
}

impl Forwarded {
    pub(super) fn header(client: SocketAddr, host: Option<&str>) -> Option<(&'static str, HeaderValue)> {
        let host = host.map(|h| format!(";host={h}")).unwrap_or_default();
        let value = HeaderValue::try_from(format!("for=\"{client}\"{host}")).ok()?;
        Some((FORWARDED, value))
    }

    /// Reads the first element; what cannot be read is left out.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let mut forwarded = Self::default();
        let Some(value) = headers.get(FORWARDED).and_then(|v| v.to_str().ok()) else {
            return forwarded;
        };
        for pair in value.split(',').next().unwrap_or_default().split(';') {
            let Some((key, value)) = pair.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "for" => forwarded.client = value.parse().ok(),
                "host" => forwarded.host = Some(value.to_owned()).filter(|h| !h.is_empty()),
                _ => {}
            }
        }
        forwarded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_survives_the_wire() {
        for r in [
            Refusal::ConnectionRefused,
            Refusal::Unroutable,
            Refusal::TimedOut,
            Refusal::Denied,
            Refusal::LimitReached,
            Refusal::BadRequest,
            Refusal::UnknownDestination,
        ] {
            let (name, value) = r.header();
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value)]);
            assert_eq!(Refusal::from_headers(&headers), Some(r));
        }
        assert_eq!(Refusal::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn forwarded_survives_the_wire_and_nonsense_is_left_out() {
        for client in ["10.0.0.1:4711", "[fd00::1]:4711"] {
            let client = client.parse().unwrap();
            let (name, value) = Forwarded::header(client, Some("echo.t.svc")).unwrap();
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value)]);
            let expected = Forwarded {
                client: Some(client),
                host: Some("echo.t.svc".to_owned()),
            };
            assert_eq!(Forwarded::from_headers(&headers), expected);
        }
        for nonsense in [
            "",
            ";;;",
            "for",
            "for=",
            "for=\"unknown\"",
            "host=",
            "=,=;",
            "for=\"10.0.0.1\"",
        ] {
            let headers = HeaderMap::from_iter([(FORWARDED.parse().unwrap(), nonsense.parse().unwrap())]);
            assert_eq!(
                Forwarded::from_headers(&headers),
                Forwarded::default(),
                "{nonsense}"
            );
        }
    }
}
