//! Whose address does the application get to see? Pure; the facts come from the tunnel and the registry.

use std::net::{IpAddr, SocketAddr};

use crate::model::SpiffeId;
use crate::model::addr::{canonical, is_local_only};

/// What is known about the client of a tunnelled connection.
#[derive(Debug)]
pub struct Claim<'a> {
    /// The client address that the peer's proxy names, if it names one.
    pub claimed: Option<SocketAddr>,
    /// Where the tunnel really comes from.
    pub tunnel: SocketAddr,
    /// The identity that the peer proved.
    pub peer: &'a SpiffeId,
    /// The identity that the registry gives to the claimed address.
    pub registered: Option<&'a SpiffeId>,
    /// This pod's own addresses.
    pub own: &'a [IpAddr],
}

/// The claimed address where there is reason to believe it, else the tunnel's. A forged loopback address would open
/// what applications allow to local clients only. No client has port 0, and with it nobody could be shown.
pub fn client_address(claim: &Claim<'_>) -> SocketAddr {
    let tunnel = canonical(claim.tunnel);
    let Some(claimed) = claim.claimed.map(canonical) else {
        return tunnel;
    };
    let never = claimed.port() == 0
        || is_local_only(claimed.ip())
        || (claim.own.contains(&claimed.ip()) && claimed.ip() != tunnel.ip());
    let with_reason = claimed.ip() == tunnel.ip() || claim.registered == Some(claim.peer);
    if with_reason && !never { claimed } else { tunnel }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_believed_only_with_reason() {
        let peer = SpiffeId::new("td.test", "a", "client").unwrap();
        let other = SpiffeId::new("td.test", "a", "other").unwrap();
        let own = ["10.0.0.9".parse().unwrap()];
        let shown = |claimed: &str, registered: Option<&SpiffeId>| {
            let tunnel = "10.0.0.1:999".parse().unwrap();
            let claim = Claim {
                claimed: claimed.parse().ok(),
                tunnel,
                peer: &peer,
                registered,
                own: &own,
            };
            client_address(&claim).to_string()
        };
        assert_eq!(
            shown("10.0.0.1:4711", None),
            "10.0.0.1:4711",
            "the tunnel's own host"
        );
        assert_eq!(
            shown("[fd00::1]:4711", Some(&peer)),
            "[fd00::1]:4711",
            "registered for the identity"
        );
        assert_eq!(
            shown("[fd00::1]:4711", Some(&other)),
            "10.0.0.1:999",
            "registered for another"
        );
        assert_eq!(
            shown("10.0.0.2:4711", None),
            "10.0.0.1:999",
            "registered for nobody"
        );
        assert_eq!(shown("none", None), "10.0.0.1:999", "no claim");
        for forged in [
            "127.0.0.1:1",
            "[::1]:1",
            "0.0.0.0:1",
            "[::ffff:127.0.0.1]:1",
            "224.0.0.1:1",
            "10.0.0.9:1",
            "10.0.0.1:0",
        ] {
            assert_eq!(shown(forged, Some(&peer)), "10.0.0.1:999", "{forged}");
        }
    }
}
