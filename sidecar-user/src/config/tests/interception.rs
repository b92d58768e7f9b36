//! What is intercepted, and that nothing has to be said.

use super::*;
use crate::proxy::Takeover;

#[test]
fn a_proxy_that_intercepts_nothing_has_to_say_so() {
    let found = read_proxy(MINIMAL, &[]).unwrap_err();
    assert_eq!(
        found,
        "`interception`: it is missing; set interception.cgroup and interception.pins, or write `interception: none` \
         for a proxy that intercepts nothing"
    );
    let none = format!("{MINIMAL}interception: none\n");
    assert!(read_proxy(&none, &[]).unwrap().role.datapath.is_none());
    let both = read_proxy(&none, &["--cgroup", "/c", "--pins", "/p"]).unwrap_err();
    assert!(
        both.contains("5:15: `interception`: it is `none`, and fields of it are given too"),
        "{both}"
    );
    let given = read_proxy(MINIMAL, &["--cgroup", "/c", "--pins", "/p"]).unwrap();
    assert!(
        !given.role.datapath.unwrap().allow_whole_host,
        "only where it is said"
    );
    let host = format!("{MINIMAL}interception: {{cgroup: /c, pins: /p, allowWholeHost: true}}\n");
    assert!(
        read_proxy(&host, &[])
            .unwrap()
            .role
            .datapath
            .unwrap()
            .allow_whole_host
    );
}

#[test]
fn a_second_proxy_takes_over_unless_it_is_said_otherwise() {
    let read = |word: &str| {
        let text = format!("{MINIMAL}interception: {{cgroup: /c, pins: /p{word}}}\n");
        read_proxy(&text, &[]).map(|loaded| loaded.role.takeover)
    };
    assert_eq!(read("").unwrap(), Takeover::Allow);
    assert_eq!(read(", takeover: refuse").unwrap(), Takeover::Refuse);
    let wrong = read(", takeover: never").unwrap_err();
    assert!(
        wrong.contains("`interception.takeover`: `never` is not known here; write allow or refuse"),
        "{wrong}"
    );
}

#[test]
fn a_check_says_what_a_proxy_that_intercepts_nothing_does_not_do() {
    for (name, mode, warned) in [
        ("none-permissive", "permissive", "leave in plaintext"),
        ("none-strict", "strict", "never becomes ready"),
    ] {
        let file = Scratch::new(name, &format!("{MINIMAL}mode: {mode}\ninterception: none\n"));
        let lines = check(&file.0, None).unwrap();
        assert!(lines[0].ends_with("intercepts nothing)"), "{lines:?}");
        assert!(
            lines[1].contains("`interception`: none") && lines[1].contains(warned),
            "{lines:?}"
        );
    }
    let file = Scratch::new("some", FULL);
    assert_eq!(check(&file.0, None).unwrap().len(), 1, "no warning");
}

#[test]
fn addresses_are_those_of_the_network_namespace_that_is_named() {
    let given = |netns: &str| format!("{MINIMAL}interception: {{cgroup: /c, netns: {netns}, pins: /p}}\n");
    let read = |text: &str, fails: bool| {
        let here = |netns: Option<&Path>| match (netns.and_then(Path::to_str), fails) {
            (Some("/run/netns/x"), false) => Ok(vec!["10.7.7.7".parse().unwrap()]),
            (netns, _) => Err(io::Error::other(format!("{netns:?}"))),
        };
        read_text(Some(text), &PROXY, &Overrides::default(), |layers| {
            proxy::read(layers, here)
        })
        .map_err(|problems| render(None, &problems))
    };
    let role = read(&given("/run/netns/x"), false).unwrap().role;
    assert_eq!(role.addresses, ["10.7.7.7".parse::<IpAddr>().unwrap()]);
    assert_eq!(
        role.datapath.unwrap().netns.as_deref(),
        Some(Path::new("/run/netns/x"))
    );
    let wrong = read(&given("/run/netns/x"), true).unwrap_err();
    assert!(
        wrong.contains("`interception.netns`: cannot list the interfaces: Some(\"/run/netns/x\")"),
        "{wrong}"
    );
    let relative = read(&given("x"), false).unwrap_err();
    assert_eq!(
        relative.matches("`x` is not an absolute path").count(),
        1,
        "{relative}"
    );
}

#[test]
fn a_pod_that_is_attached_to_by_itself_is_named_by_its_uid_alone() {
    const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";
    let read = |more: &[&str]| read_proxy(MINIMAL, &[&["--pod", UID, "--pins", "/p"], more].concat());
    let role = read(&[
        "--probe-ports",
        "80,8080,80",
        "--node-addresses",
        "10.0.0.1,fd00::1",
    ])
    .unwrap()
    .role;
    let own = role.own_pod.unwrap();
    assert_eq!((own.uid.as_str(), own.node_addresses.len()), (UID, 2));
    assert_eq!(own.probe_ports, [80, 8080].into());
    let kernel = role.datapath.unwrap();
    assert_eq!(
        kernel.pins,
        std::path::Path::new("/p").join(UID),
        "one for each pod"
    );
    for (more, told) in [
        (
            ["--cgroup", "/c"],
            "`--cgroup`: it is given, and interception.pod too",
        ),
        (
            ["--netns", "/n"],
            "`--netns`: it is given, and interception.pod too",
        ),
        (["--agent", "@a"], "interception.agent too"),
        (["--probe-ports", "0"], "`--probe-ports`"),
    ] {
        let error = read(&more).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    let error = read_proxy(MINIMAL, &["--pod", "web-1", "--pins", "/p"]).unwrap_err();
    assert!(error.contains("`web-1` is no pod UID"), "{error}");
    let error = read_proxy(
        MINIMAL,
        &["--cgroup", "/c", "--pins", "/p", "--probe-ports", "80"],
    )
    .unwrap_err();
    assert!(error.contains("interception.pod is missing"), "{error}");
}
