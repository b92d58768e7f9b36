//! What has to hold of the headers of CONNECT and of its answer, whatever a peer writes there.

use http::{HeaderMap, HeaderName, Method, Request};

use super::{Forwarded, Refusal, server};

/// What the request says of its client.
pub(crate) fn request(request: &Request<()>) -> Result<Forwarded, String> {
    let forwarded = Forwarded::from_headers(request.headers());
    assert_ne!(forwarded.host.as_deref(), Some(""));
    if let Some(client) = forwarded.client {
        let printed = Forwarded::header(client, forwarded.host.as_deref()).map(one);
        let again = printed.map(|headers| Forwarded::from_headers(&headers));
        assert!(again.is_none_or(|again| again.client == Some(client)));
    }
    let authority = server::authority(request).map_err(|refusal| refusal.to_string())?;
    assert_eq!(request.method(), Method::CONNECT);
    let whole = authority.as_str().rsplit_once(':');
    assert_eq!(whole.map(|(host, _)| host), Some(authority.host()), "{authority}");
    assert!(authority.port_u16().is_some_and(|port| port != 0), "{authority}");
    assert!(
        !authority.as_str().contains('@') && !authority.host().is_empty(),
        "{authority}"
    );
    Ok(forwarded)
}

/// Why the peer refused.
pub(crate) fn connect_answer(headers: &HeaderMap) -> Result<String, String> {
    let refusal = Refusal::from_headers(headers).ok_or_else(String::new)?;
    assert_eq!(Refusal::from_headers(&one(refusal.header())), Some(refusal));
    assert!(!refusal.status().is_success(), "{refusal}");
    Ok(refusal.to_string())
}

fn one((name, value): (&'static str, http::HeaderValue)) -> HeaderMap {
    HeaderMap::from_iter([(HeaderName::from_static(name), value)])
}
