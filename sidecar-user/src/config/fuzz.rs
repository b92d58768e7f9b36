//! What has to hold of a configuration, whatever its text.

use std::collections::BTreeSet;

use super::check::{Kind, detect, summarize};
use super::layers::{Layers, Overrides};
use super::{PROXY, proxy, read_text};

/// A file of any kind. Whatever is taken has listeners that do not take each other's connections, and an authority that is
/// spoken to over TLS.
pub(crate) fn file(text: &str) -> Result<String, String> {
    let kind = detect(text).map_err(|problems| problems.to_string())?;
    let summary = summarize(text, kind).map_err(|problems| problems.to_string())?;
    if kind == Kind::Proxy {
        let here = |_: Option<&std::path::Path>| Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()]);
        let loaded = read_text(Some(text), &PROXY, &Overrides::default(), |layers: &Layers| {
            proxy::read(layers, here)
        });
        let config = loaded.expect("it was taken before").role;
        let ports = [config.intercept.hbone_port, config.observe.status_port];
        assert_eq!(BTreeSet::from(ports).len(), ports.len(), "{ports:?}");
        assert!(!ports.contains(&0), "{ports:?}");
        if let crate::identity::Source::Authority(ask) = &config.identity.source {
            let authority = &ask.authority;
            let scheme = authority.split_once("://").map(|(scheme, _)| scheme);
            assert!(
                ask.is_agents() || scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case("https")),
                "{authority}"
            );
        }
        assert!(!config.addresses.is_empty() && config.workers > 0);
    }
    Ok(format!("{}\n{}", summary.line, summary.warnings.join("\n")))
}
