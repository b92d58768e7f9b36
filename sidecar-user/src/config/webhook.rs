//! The settings of the webhook that injects, a part of `outrigger control`.

use std::fs;

use super::layers::{Layers, or};
use super::values::{non_empty, path, status};
use crate::inject::Profile;
use crate::webhook;

const PROFILE: &str = "webhookProfile";

/// Inner `None`: there is none.
pub(super) fn read(
    layers: &Layers,
    cluster_domain: &str,
    server_names: &[String],
) -> Option<Option<webhook::Config>> {
    let listen = or(layers, "webhook", None, |path| layers.read(path, status))?;
    let configuration = or(
        layers,
        "webhookConfiguration",
        "outrigger-inject".to_owned(),
        |path| layers.read(path, non_empty),
    )?;
    let Some(listen) = listen else { return Some(None) };
    let file = layers.require(PROFILE, path)?;
    let problem = |what: String, remedy: &str| layers.problem(PROFILE, what, remedy);
    let profile = match fs::read_to_string(&file) {
        Ok(text) => Profile::parse(&text).map_err(|problems| {
            problem(
                problems.in_file(&file),
                "correct it; docs/injection.md has every field",
            )
        }),
        Err(error) => {
            problem(
                format!("cannot read {}: {error}", file.display()),
                "name a file with the sidecars' profile",
            );
            Err(())
        }
    };
    Some(Some(webhook::Config {
        listen,
        profile: profile.ok()?,
        configuration,
        cluster_domain: cluster_domain.to_owned(),
        server_names: server_names.to_vec(),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::PROXY;
    use crate::inject::{Namespace, Profile, inject};

    #[test]
    fn every_variable_of_an_injected_container_is_a_setting_of_the_proxy() {
        let known: Vec<&str> = PROXY.iter().map(|setting| setting.env).collect();
        let namespace = Namespace {
            name: "shop".to_owned(),
            is_enabled: true,
        };
        let pod = json!({ "spec": { "containers": [{ "name": "main" }] } });
        let pod = inject(&pod, &namespace, &Profile::new("x:1")).unwrap().pod;
        for variable in pod["spec"]["initContainers"][0]["env"].as_array().unwrap() {
            let name = variable["name"].as_str().unwrap();
            assert!(known.contains(&name), "{name}");
        }
    }
}
