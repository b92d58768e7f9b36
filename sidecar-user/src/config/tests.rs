//! What the configuration accepts and refuses, by text, flags and environment. Starts nothing.

use std::net::IpAddr;
use std::time::Duration;

use clap::Command;

use super::*;
use crate::lifecycle::Format;
use crate::{identity, observe, policy, route};

mod certificate_files;
mod cluster;
mod interception;
mod registry;
mod stop;

const MINIMAL: &str = "
workload: {name: client}
registry: /etc/outrigger/registry.yaml
identity: {authority: 'https://10.99.0.1:15012', roots: /r.pem, token: /t}
";

const FULL: &str = r#"
workload:
  name: client
  namespace: demo
  serviceAccount: client
  trustDomain: td.test
  addresses: [10.99.0.2, "fd99::2"]
mode: strict
outbound: registry-only
registry: /etc/outrigger/registry.yaml
identity:
  authority: https://10.99.0.1:15012
  serverName: control.outrigger
  roots: /etc/outrigger/root-cert.pem
  token: /var/run/secrets/outrigger/token
  ttl: 1h
interception:
  cgroup: /sys/fs/cgroup/pod
  pins: /sys/fs/bpf/outrigger/client
listen:
  hbone: 25008
  status: 25020
  admin: "[::1]:25000"
  adminSocket: /run/outrigger/admin.sock
workers: 2
drain: 250ms
log: {level: "warn,outrigger=debug", format: json}
"#;

fn here(_: Option<&Path>) -> io::Result<Vec<IpAddr>> {
    Ok(vec!["10.1.2.3".parse().unwrap()])
}

/// Flags as a user types them.
fn flags(settings: &'static [Setting], args: &[&str]) -> Overrides {
    let command = Overrides::augment(Command::new("test"), settings);
    let matches = command.try_get_matches_from(["test"].iter().chain(args)).unwrap();
    Overrides::from_matches(&matches, settings)
}

fn read_proxy(text: &str, args: &[&str]) -> Result<Loaded<crate::proxy::Config>, String> {
    read_text(Some(text), &PROXY, &flags(&PROXY, args), |layers| {
        proxy::read(layers, here)
    })
    .map_err(|p| p.to_string())
}

fn read_control(text: &str, args: &[&str]) -> Result<Loaded<crate::control::Config>, String> {
    read_text(Some(text), &CONTROL, &flags(&CONTROL, args), control::read).map_err(|p| p.to_string())
}

fn asked(role: &crate::proxy::Config) -> &identity::Ask {
    match &role.identity.source {
        identity::Source::Authority(ask) => ask,
        identity::Source::Files(files) => panic!("{files:?}"),
    }
}

#[test]
fn every_field_of_the_file_arrives() {
    let Loaded { role, logging } = read_proxy(FULL, &[]).unwrap();
    assert_eq!(role.name, "client");
    assert_eq!(role.identity.id.as_str(), "spiffe://td.test/ns/demo/sa/client");
    assert_eq!(role.addresses.len(), 2);
    assert_eq!(
        (role.mode, role.unknown),
        (policy::Mode::Strict, route::Unknown::Refuse)
    );
    let ask = asked(&role);
    assert_eq!(ask.server_name.as_deref(), Some("control.outrigger"));
    assert_eq!(ask.ttl, Duration::from_secs(3600));
    let kernel = role.datapath.unwrap();
    assert_eq!(
        (kernel.hbone_port, kernel.shards, kernel.strict),
        (25008, 2, true)
    );
    assert_eq!(kernel.open_ports, [25008, 25020]);
    assert_eq!(kernel.pod_addresses, role.addresses);
    assert_eq!(role.observe.admin.unwrap().to_string(), "[::1]:25000");
    assert_eq!(
        role.observe.admin_socket,
        Some(observe::SocketPath {
            path: "/run/outrigger/admin.sock".into(),
            is_required: true
        })
    );
    assert_eq!(
        (role.workers, role.stop.deadline),
        (2, Duration::from_millis(250))
    );
    assert_eq!(
        (logging.filter.as_str(), logging.format),
        ("warn,outrigger=debug", Format::Json)
    );
}

#[test]
fn what_is_left_out_has_its_default() {
    let Loaded { role, logging } = read_proxy(MINIMAL, &["--interception", "none"]).unwrap();
    assert_eq!(
        role.identity.id.as_str(),
        "spiffe://cluster.local/ns/default/sa/default"
    );
    assert_eq!(role.addresses, here(None).unwrap());
    assert_eq!(
        (role.mode, role.unknown),
        (policy::Mode::Permissive, route::Unknown::PassThrough)
    );
    assert!(role.datapath.is_none());
    assert_eq!(
        (role.intercept.hbone_port, role.observe.status_port),
        (15008, 15020)
    );
    assert_eq!(role.observe.admin.unwrap().to_string(), "127.0.0.1:15000");
    let ttl = asked(&role).ttl;
    let socket = role.observe.admin_socket.unwrap();
    assert_eq!(
        (socket.path.to_str(), socket.is_required),
        (Some("/run/outrigger/admin.sock"), false)
    );
    assert!((1..=2).contains(&role.workers), "{}", role.workers);
    assert_eq!(
        (role.stop.deadline, ttl),
        (Duration::from_secs(25), Duration::from_secs(86400))
    );
    assert_eq!(logging, Logging::default());
}

#[test]
fn a_flag_wins_over_the_file() {
    let args = [
        "--mode",
        "permissive",
        "--addresses",
        "10.0.0.9, fd00::9",
        "--workers",
        "5",
        "--admin",
        "none",
    ];
    let role = read_proxy(FULL, &args).unwrap().role;
    assert_eq!(role.mode, policy::Mode::Permissive);
    assert_eq!(role.addresses.len(), 2);
    assert_eq!(role.addresses[0].to_string(), "10.0.0.9");
    assert_eq!((role.workers, role.observe.admin), (5, None));
}

#[test]
fn flags_alone_are_enough() {
    let args = [
        "--name",
        "x",
        "--registry",
        "/r",
        "--authority",
        "https://ca",
        "--authority-roots",
        "/p",
        "--token",
        "/t",
        "--cgroup",
        "/c",
        "--pins",
        "/p",
    ];
    let role = read_proxy("", &args).unwrap().role;
    assert_eq!((role.name.as_str(), role.datapath.is_some()), ("x", true));
}

#[test]
fn an_empty_override_is_none() {
    assert_eq!(
        read_proxy(FULL, &["--mode", ""]).unwrap().role.mode,
        policy::Mode::Strict
    );
}

#[test]
fn everything_that_is_missing_is_named_at_once_with_its_flag_and_variable() {
    let found = read_proxy("interception:\n  cgroup: /c\n", &[]).unwrap_err();
    for field in [
        "workload.name",
        "registry",
        "identity.authority",
        "identity.roots",
        "identity.token",
    ] {
        assert!(
            found.contains(&format!("`{field}`: it is missing")),
            "{field}\n{found}"
        );
    }
    assert!(
        found.contains("set it in the file, by --registry or by OUTRIGGER_REGISTRY"),
        "{found}"
    );
    assert!(
        found.contains("1:1: `interception.pins`: it is missing"),
        "{found}"
    );
}

#[test]
fn each_mistake_names_field_value_and_remedy() {
    for (extra, expected) in [
        ("mod: strict", "5:1: `mod`: unknown field; did you mean `mode`?"),
        (
            "listen: {statu: 1}",
            "5:10: `listen.statu`: unknown field; did you mean `status`?",
        ),
        (
            "mode: stric",
            "5:7: `mode`: `stric` is not known here; did you mean `strict`?",
        ),
        ("outbound: all", "write passthrough or registry-only"),
        (
            "drain: 5",
            "`drain`: `5` is no duration; write a number with its unit",
        ),
        ("workers: -1", "`workers`: `-1` is no number of threads"),
        ("workers: [1]", "`workers`: a list stands here"),
        ("listen: {status: 0}", "`listen.status`: `0` is no port"),
        ("listen: {admin: '0.0.0.0:15000'}", "can be reached from outside"),
        ("listen: {admin: 127.0.0.1}", "is no socket address"),
        (
            "listen: {admin: '127.0.0.1:15008'}",
            "`listen.admin`: port 15008 is the port of `listen.hbone` too",
        ),
        (
            "listen: {status: 15008}",
            "`listen.status`: port 15008 is the port of `listen.hbone` too",
        ),
        (
            "interception: {cgroup: pod, pins: /p}",
            "`pod` is not an absolute path",
        ),
        (
            "interception: {cgroup: /c, pins: /p, allowWholeHost: yes}",
            "`interception.allowWholeHost`: `yes` is not known here; write true or false",
        ),
        (
            "interception: all",
            "5:15: `interception`: `all` is not known here; set interception.cgroup and interception.pins",
        ),
        ("interception:", "5:1: `interception.cgroup`: it is missing"),
        ("log: {level: infos}", "`infos` names no log level"),
        ("log: {format: xml}", "write text or json"),
        ("mode: strict\nmode: strict", "a second time"),
        (
            "listen: 15001",
            "`listen`: a single value stands here; write a map",
        ),
    ] {
        let found = read_proxy(&format!("{}{extra}\n", MINIMAL), &[]).unwrap_err();
        assert!(
            found.contains(expected),
            "{extra}\nexpected: {expected}\nfound: {found}"
        );
    }
}

#[test]
fn wrong_identities_are_refused() {
    for (from, to, expected) in [
        ("https://10.99", "http://10.99", "does not begin with https://"),
        (":15012'", ":15012/path'", "has a path"),
        (":15012'", ":0'", "has no valid port"),
        (
            "{name: client}",
            "{name: client, trustDomain: TD}",
            "the trust domain may hold only",
        ),
        (
            "{name: client}",
            "{name: client, namespace: a/b}",
            "`workload.namespace`: `a/b`",
        ),
        ("{name: client}", "{name: ''}", "the value is empty"),
        (
            "{name: client}",
            "{name: client, addresses: []}",
            "no usable address",
        ),
        (
            "{name: client}",
            "{name: client, addresses: [0.0.0.0]}",
            "is not the address of a host",
        ),
        ("token: /t", "token: /t, ttl: 10ms", "too short for a certificate"),
        ("token: /t", "token: /t, serverName: 'a b'", "is no host name"),
    ] {
        let found = read_proxy(&MINIMAL.replace(from, to), &[]).unwrap_err();
        assert!(
            found.contains(expected),
            "{to}\nexpected: {expected}\nfound: {found}"
        );
    }
}

#[test]
fn a_mistake_in_a_flag_is_named_by_the_flag() {
    let found = read_proxy(MINIMAL, &["--mode", "open"]).unwrap_err();
    assert!(found.starts_with("`--mode`: `open` is not known here"), "{found}");
}

#[test]
fn control_reads_its_file_and_has_defaults() {
    let issuer = read_control("stateDir: /var/lib/outrigger", &[])
        .unwrap()
        .role
        .issuer;
    assert_eq!(issuer.listen.to_string(), "[::]:15012");
    assert_eq!(
        (issuer.trust_domain.as_str(), issuer.leaf_ttl),
        ("cluster.local", Duration::from_secs(86400))
    );
    assert_eq!(issuer.server_names, ["control.outrigger"]);
    let text =
        "{listen: '0.0.0.0:1', stateDir: /s, trustDomain: td, leafTtl: 2h, serverNames: [a.b, 10.0.0.1]}";
    let issuer = read_control(text, &["--server-names", "c,d"])
        .unwrap()
        .role
        .issuer;
    assert_eq!(issuer.server_names, ["c", "d"]);
    for (text, expected) in [
        ("{}", "`stateDir`: it is missing"),
        ("{stateDir: /s, listen: 15012}", "is no socket address"),
        ("{stateDir: /s, serverNames: []}", "the list is empty"),
        ("{stateDir: /s, serverNames: ['https://x']}", "is no host name"),
        ("{stateDir: /s, leafTTL: 1h}", "did you mean `leafTtl`?"),
    ] {
        let found = read_control(text, &[]).unwrap_err();
        assert!(found.contains(expected), "{text}: {found}");
    }
}

#[test]
fn flags_and_variables_are_unique_and_every_field_is_documented() {
    const MANUAL: &str = include_str!("../../../docs/configuration.md");
    for settings in [&PROXY[..], &CONTROL[..], &AGENT[..]] {
        for (n, setting) in settings.iter().enumerate() {
            let same = settings[..n]
                .iter()
                .find(|s| s.flag == setting.flag || s.env == setting.env);
            assert!(same.is_none(), "{setting:?}");
            for word in [setting.path, &format!("--{}", setting.flag), setting.env] {
                assert!(
                    MANUAL.contains(&format!("`{word}`")),
                    "{word} is not in docs/configuration.md"
                );
            }
        }
    }
}

#[test]
fn no_damage_to_a_file_makes_the_reader_panic() {
    for at in 0..FULL.len() {
        let (head, tail) = FULL.split_at(at);
        for text in [
            head.to_owned(),
            format!("{head}{}", &tail[1..]),
            format!("{head}[{tail}"),
            format!("{head}: {tail}"),
        ] {
            let _ = read_proxy(&text, &[]);
            let _ = read_control(&text, &[]);
        }
    }
    assert!(read_proxy(FULL, &[]).is_ok());
}

/// A file for the time of one test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("outrigger-config-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_check_finds_out_what_a_file_is() {
    for (name, text, expected) in [
        (
            "proxy",
            FULL,
            "ok (proxy, spiffe://td.test/ns/demo/sa/client, intercepts)",
        ),
        (
            "control",
            "stateDir: /s\nlisten: '[::]:1'",
            "ok (control, cluster.local, listens on [::]:1)",
        ),
        (
            "registry",
            "workloads: []",
            "ok (registry, 0 workloads, 0 services, 0 policies)",
        ),
        (
            "interception-policy",
            "outbound: [{ports: [22], action: leave}]\ninbound: []",
            "ok (interception policy, 1 outbound rules, 0 inbound rules)",
        ),
    ] {
        let file = Scratch::new(name, text);
        let lines = check(&file.0, None).unwrap();
        assert!(lines[0].ends_with(expected), "{lines:?}");
    }
}

#[test]
fn a_check_names_file_and_line_of_each_problem() {
    let file = Scratch::new("bad", "workloads:\n- nam: x\n");
    let error = check(&file.0, None).unwrap_err().to_string();
    assert!(
        error.contains(&format!(
            "{}:2:3: `workloads[0].nam`: unknown field",
            file.0.display()
        )),
        "{error}"
    );
    let forced = check(&file.0, Some(Kind::Control)).unwrap_err().to_string();
    assert!(forced.contains("`stateDir`"), "{forced}");
}

#[test]
fn a_check_of_a_proxy_reads_its_interception_policy_too() {
    let policy = Scratch::new("policy", "outbound: [{ports: [22], action: leaf}]");
    let text = format!(
        "{MINIMAL}\ninterception: {{cgroup: /c, pins: /p, policy: {}}}\n",
        policy.0.display()
    );
    let proxy = Scratch::new("with-policy", &text);
    let error = check(&proxy.0, None).unwrap_err().to_string();
    let place = format!("{}:1:34: `outbound[0].action`", policy.0.display());
    assert!(error.contains(&place), "{error}");

    std::fs::write(&policy.0, "outbound: [{ports: [22], action: leave}]").unwrap();
    let lines = check(&proxy.0, None).unwrap();
    assert!(lines[1].contains("1 outbound rules"), "{lines:?}");

    std::fs::remove_file(&policy.0).unwrap();
    let error = check(&proxy.0, None).unwrap_err().to_string();
    assert!(error.contains("cannot read the interception policy"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let missing = std::env::temp_dir().join("outrigger-no-such-file");
    assert!(
        check(&missing, None)
            .unwrap_err()
            .to_string()
            .contains("outrigger-no-such-file")
    );
}
