//! Values of Istio's objects, as their lists spell them, and whom a selector selects. What cannot be read is `None`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::model::authorization::{ServiceAccount, StringMatch};

/// `*` for anything but nothing, `*suffix`, `prefix*`, or the text itself.
pub(super) fn text(value: &str) -> StringMatch {
    if value == "*" {
        return StringMatch::Presence;
    }
    match (value.strip_prefix('*'), value.strip_suffix('*')) {
        (Some(suffix), _) => StringMatch::Suffix(suffix.to_owned()),
        (None, Some(prefix)) => StringMatch::Prefix(prefix.to_owned()),
        (None, None) => StringMatch::Exact(value.to_owned()),
    }
}

/// `namespace/name`, or the name alone for one in the namespace of the policy.
pub(super) fn account(value: &str, namespace: &str) -> ServiceAccount {
    let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
    ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

pub(super) fn port(value: &str) -> Option<u16> {
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    value.parse().ok().filter(|_| is_number)
}

/// A network, or one address. Addresses are compared in their canonical form, in which a v4-mapped network is one of IPv4.
pub(super) fn net(value: &str) -> Option<IpNet> {
    const MAPPED_BITS: u8 = 96;
    let net = match value.contains('/') {
        true => value.parse::<IpNet>().ok()?,
        false => value.parse::<IpAddr>().ok()?.into(),
    };
    let IpNet::V6(v6) = net else {
        return Some(net);
    };
    match v6.addr().to_ipv4_mapped() {
        // One that is wider has IPv6 addresses beside these.
        Some(v4) => {
            let length = v6.prefix_len().checked_sub(MAPPED_BITS)?;
            Ipv4Net::new(v4, length).ok().map(IpNet::V4)
        }
        None => Some(net),
    }
}

/// Has a workload with `labels` all that is wanted?
pub(super) fn covers(wanted: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_at_one_end() {
        let exact = |text: &str| StringMatch::Exact(text.into());
        for (value, wanted) in [
            ("*", StringMatch::Presence),
            ("a*", StringMatch::Prefix("a".into())),
            ("*a", StringMatch::Suffix("a".into())),
            // Istio looks at the beginning first.
            ("*a*", StringMatch::Suffix("a*".into())),
            ("a*b", exact("a*b")),
            ("", exact("")),
        ] {
            assert_eq!(text(value), wanted, "{value}");
        }
    }

    #[test]
    fn an_account_without_a_namespace_is_in_that_of_the_policy() {
        for (value, namespace, name) in [("a", "n", "a"), ("m/a", "m", "a"), ("m/a/b", "m", "a/b")] {
            let found = account(value, "n");
            assert_eq!((&*found.namespace, &*found.name), (namespace, name));
        }
    }

    #[test]
    fn ports_are_numbers_and_networks_are_of_the_family_that_they_mean() {
        assert_eq!(port("65535"), Some(65535));
        for value in ["", "65536", "-1", "+1", "http", "8 0"] {
            assert_eq!(port(value), None, "{value}");
        }
        for (value, wanted) in [
            ("1.2.3.4", Some("1.2.3.4/32")),
            ("1.2.0.0/16", Some("1.2.0.0/16")),
            ("fd00::/8", Some("fd00::/8")),
            ("::ffff:10.0.0.1", Some("10.0.0.1/32")),
            ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
            ("::ffff:10.0.0.0/64", None),
            ("10.0.0.0/33", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(
                net(value).map(|net| net.to_string()).as_deref(),
                wanted,
                "{value}"
            );
        }
    }
}
