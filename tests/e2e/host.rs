//! A host without Kubernetes: the units of `deploy/systemd` and the page about them do what they say, step by step and without
//! a systemd: a sidecar serves with the rights of its unit, a slice comes up by the commands of its units. With one: `machine.rs`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use harness::apps;
use harness::mesh::whole::Plan;
use harness::mesh::{Options, binaries};
use harness::{Fabric, Mesh, Pod, wait};
use nix::sys::signal::Signal;

#[test]
fn a_sidecar_serves_as_another_user_with_the_capabilities_of_its_unit_and_nobody_notices() -> Result<()> {
    let unit = unit("outrigger-sidecar@.service")?;
    let names = |setting: &str| -> Vec<String> {
        let values = values(&unit, setting);
        let words = values.iter().flat_map(|value| value.split(' '));
        words
            .map(|name| name.trim_start_matches("CAP_").to_lowercase())
            .collect()
    };
    let bounding = names("CapabilityBoundingSet");
    assert_eq!(bounding, names("AmbientCapabilities"));
    let plan = Plan {
        client: Options::new("client").only_capabilities(bounding.clone()),
        server: Options::new("server").only_capabilities(bounding),
        ..Plan::default()
    };
    let mut mesh = Mesh::of("confined", &plan)?;
    mesh.serve(apps::nginx, 8080)?;
    let pid = mesh.client.sidecar.pid().context("it runs")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    assert!(
        status.contains("\nUid:\t65534\t") && status.contains("\nNoNewPrivs:\t1"),
        "{status}"
    );
    for given_up in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
        let none = format!("\n{given_up}:\t0000000000000000");
        assert!(status.contains(&none), "{status}");
    }
    for vip in [mesh.vip4(80), mesh.vip6(80)] {
        apps::curl(&mesh.client.pod, &apps::url(vip))?.ok()?;
    }
    mesh.client
        .sidecar
        .until_flow("it went through the mesh", |flow| flow["direction"] == "outbound")?;
    let log = mesh.client.sidecar.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    // The next one takes over what a proxy of the same user has left.
    mesh.client.sidecar.kill();
    mesh.client.sidecar.restart()?;
    apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80)))?.ok()?;
    Ok(())
}

/// A slice's network as its unit makes it, and as it takes it down.
struct Slice<'a> {
    node: &'a Pod,
    name: String,
}

impl<'a> Slice<'a> {
    fn start(node: &'a Pod) -> Result<Self> {
        let name = format!("t{}", std::process::id());
        let slice = Self { node, name };
        slice.run("ExecStart")?;
        Ok(slice)
    }

    fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    fn run(&self, setting: &str) -> Result<()> {
        for line in values(&unit("outrigger-network@.service")?, setting) {
            let line = line.replace("%i", &self.name).replace("${ADDRESS}", "10.88.0.2");
            let line = line.replace("${GATEWAY}", "10.88.0.1");
            let may_fail = line.starts_with('-');
            let words: Vec<&str> = line.trim_start_matches('-').split(' ').collect();
            let ran = self.node.run(words[0], &words[1..])?;
            ensure!(may_fail || ran.status.success(), "{line}: {ran:?}");
        }
        Ok(())
    }
}

impl Drop for Slice<'_> {
    fn drop(&mut self) {
        let _ = self.run("ExecStopPost");
    }
}

#[test]
fn a_slice_by_the_commands_of_its_units_and_the_files_of_the_page_is_intercepted_and_its_network_goes()
-> Result<()> {
    let fabric = Fabric::new("slice")?;
    let node = fabric.node();
    let slice = Slice::start(node)?;
    let netns = slice.netns();
    let dir = fabric.scratch();
    let at = |name: &str| dir.join(name).display().to_string();

    // The authority, and what it gives to the slice.
    let outrigger = binaries::path("outrigger")?.display().to_string();
    let mut control = node.command(&outrigger);
    control.arg("control").env("OUTRIGGER_STATE_DIR", at("state"));
    let _control = node.spawn(control)?.until_listening(15012)?;
    let id = "spiffe://cluster.local/ns/default/sa/shop";
    let state = at("state");
    let create = ["token", "create", "--state-dir", &state, "--identity", id];
    fs::write(dir.join("token"), node.run(&outrigger, create)?.ok()?)?;
    fs::copy(dir.join("state/root-cert.pem"), dir.join("root-cert.pem"))?;

    // The page's files, at other places.
    let cgroup = node.cgroup().join("shop.slice");
    fs::create_dir(&cgroup)?;
    let pins = fabric.bpffs().join("shop");
    let places = [
        ("/etc/outrigger/shop/token", at("token")),
        ("/etc/outrigger/root-cert.pem", at("root-cert.pem")),
        ("/etc/outrigger/registry.yaml", at("registry.yaml")),
        ("/etc/outrigger/%i/proxy.yaml", at("proxy.yaml")),
        ("/sys/fs/cgroup/shop.slice", cgroup.display().to_string()),
        ("/run/outrigger/bpf/shop", pins.display().to_string()),
        ("/run/outrigger/bpf/%i", pins.display().to_string()),
        ("/run/outrigger-shop/admin.sock", at("run/admin.sock")),
        ("/usr/local/bin/outrigger", outrigger.clone()),
    ];
    let placed = |text: &str| {
        places
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    };
    let page = fs::read_to_string(root().join("docs/host.md"))?;
    for (name, text) in ["proxy.yaml", "registry.yaml"].into_iter().zip(yaml(&page)) {
        fs::write(dir.join(name), placed(text))?;
    }

    // The sidecar, by the lines of its unit: in the slice's cgroup and namespace, as another user.
    let sidecar = unit("outrigger-sidecar@.service")?;
    let prepare = values(&sidecar, "ExecStartPre").join("");
    let prepare = prepare
        .trim_start_matches('+')
        .replace("-o outrigger -g outrigger", "-o nobody -g nogroup");
    fs::create_dir(dir.join("run"))?;
    let serve = placed(&values(&sidecar, "ExecStart").join(""));
    let capabilities = values(&sidecar, "CapabilityBoundingSet")
        .join("")
        .replace("CAP_", "+")
        .replace(' ', ",")
        .to_lowercase();
    let script = format!(
        "set -e; {}; chown nobody {} {}; echo 0 > {}/cgroup.procs\n\
         exec nsenter --net={} setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs \
         --inh-caps=-all,{capabilities} --ambient-caps=-all,{capabilities} --bounding-set=-all,{capabilities} {serve}",
        placed(&prepare),
        at("run"),
        at("token"),
        cgroup.display(),
        netns.display(),
    );
    let mut command = node.command("sh");
    command.args(["-c", &script]);
    let mut proxy = node.spawn(command)?;
    let config = at("proxy.yaml");
    let status = ["status", "--config", &config];
    proxy.until("all is as it says", |_| {
        node.run(&outrigger, status)
            .is_ok_and(|said| said.status.success())
    })?;

    // Whoever is in the slice is intercepted: nobody listens on the host, which the proxy finds out and says.
    let dial = format!(
        "echo 0 > {}/cgroup.procs; exec nsenter --net={} curl -sv http://10.88.0.1:9/",
        cgroup.display(),
        netns.display()
    );
    let refused = node.run("sh", ["-c", &dial])?;
    assert!(refused.stderr.contains("refused"), "{refused:?}");
    let (_, flows) = harness::http::get_unix(&dir.join("run/admin.sock"), "/flows")?;
    assert!(flows.contains("10.88.0.1:9\""), "{flows}");

    proxy.signal(Signal::SIGTERM)?;
    ensure!(proxy.wait(wait::SOON)?.success(), "{}", proxy.log());
    drop(slice);
    assert!(!netns.exists());
    Ok(())
}

#[test]
fn a_service_of_a_slice_does_not_start_where_nothing_is_attached() -> Result<()> {
    let mesh = Mesh::start("gate")?;
    let (pod, sidecar) = (&mesh.client.pod, &mesh.client.sidecar);
    let gate = values(&unit("meshed.conf")?, "ExecStartPre").join("\n");
    let gate = gate
        .trim_start_matches('+')
        .replace("/run/outrigger/bpf/shop", &sidecar.pins().display().to_string());
    let gate = gate.replace("/sys/fs/cgroup/shop.slice", &pod.cgroup().display().to_string());
    let words: Vec<&str> = gate.split(' ').collect();
    assert_eq!(words[0], "/usr/local/bin/outrigger");
    let opens = || -> Result<bool> {
        let outrigger = binaries::path("outrigger")?;
        let output = mesh
            .fabric
            .node()
            .run(&outrigger.display().to_string(), &words[1..])?;
        Ok(output.status.success())
    };
    assert!(opens()?);
    sidecar.detach_by_force()?;
    assert!(!opens()?);
    Ok(())
}

/// What the page tells an operator to write is good, and it names every file that there is.
#[test]
fn the_page_for_hosts_shows_good_files_and_all_of_them() -> Result<()> {
    let page = fs::read_to_string(root().join("docs/host.md"))?;
    let fabric = Fabric::new("page")?;
    let yaml = yaml(&page);
    assert_eq!(yaml.len(), 2, "a proxy's and a registry");
    for (n, text) in yaml.into_iter().enumerate() {
        let file = fabric.scratch().join(format!("{n}.yaml"));
        fs::write(&file, text)?;
        let mut command = fabric.node().command(binaries::path("outrigger")?);
        command.args(["config", "check"]).arg(&file);
        let said = fabric.node().run_within(command, wait::SOON)?.ok()?;
        assert!(said.contains(": ok ("), "{said}");
    }
    for file in fs::read_dir(root().join("deploy/systemd"))? {
        let name = file?.file_name().to_string_lossy().into_owned();
        assert!(
            page.contains(&format!("`{name}`")),
            "docs/host.md does not name {name}"
        );
    }
    Ok(())
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files that the page shows.
pub(crate) fn yaml(page: &str) -> Vec<&str> {
    let behind = page.split("```yaml\n").skip(1);
    behind.filter_map(|rest| rest.split("```").next()).collect()
}

/// What the page shows indented, from these words to the next line that is not; without the indentation.
pub(crate) fn commands(page: &str, first: &str) -> Result<String> {
    let shown = page.split_once(&format!("\n    {first}"));
    let (_, behind) = shown.with_context(|| format!("docs/host.md shows no {first:?}"))?;
    let block = format!("    {first}{behind}");
    let lines = block.lines().map_while(|line| line.strip_prefix("    "));
    Ok(lines.map(|line| format!("{line}\n")).collect())
}

/// A unit as it is shipped.
fn unit(name: &str) -> Result<String> {
    let path = root().join("deploy/systemd").join(name);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}

fn values(unit: &str, setting: &str) -> Vec<String> {
    let value = |line: &str| line.strip_prefix(setting)?.strip_prefix('=').map(str::to_owned);
    unit.lines().filter_map(value).collect()
}
