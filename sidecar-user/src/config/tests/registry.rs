//! Where the registry comes from.

use super::*;
use crate::discovery::Source;

fn from(registry: &str) -> String {
    MINIMAL.replace("/etc/outrigger/registry.yaml", registry)
}

#[test]
fn a_registry_is_a_file_or_the_agents() {
    let file = read_proxy(&from("./agent"), &["--interception", "none"]).unwrap();
    assert!(matches!(file.role.discovery, Source::File(config) if config.file.ends_with("agent")));
    let text = format!("{}interception: {{agent: '@outrigger/agent'}}\n", from("agent"));
    let agents = read_proxy(&text, &[]).unwrap();
    assert!(matches!(agents.role.discovery, Source::Agent));
}

#[test]
fn the_agents_registry_without_an_agent_is_refused() {
    let told = read_proxy(&from("agent"), &["--interception", "none"]).unwrap_err();
    assert!(told.contains("interception.agent"), "{told}");
}

#[test]
fn the_control_processs_registry_is_asked_where_certificates_are() {
    let control = read_proxy(&from("control"), &["--interception", "none"]).unwrap();
    assert!(matches!(control.role.discovery, Source::Control));
    let agents = [
        "--agent",
        "@outrigger/agent",
        "--authority",
        "agent",
        "--authority-roots",
        "",
    ];
    let told = read_proxy(&from("control"), &agents).unwrap_err();
    assert!(told.contains("identity.authority names no URL"), "{told}");
}
