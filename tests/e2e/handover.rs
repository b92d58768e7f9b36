//! A sidecar that an agent serves is taken over by a second one: the agent brings the two together, and nobody else can. What
//! becomes of connections is `upgrade.rs` and `crash.rs`, which run with an agent too.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::{Context, Result, ensure};
use harness::apps::{self, Keep};
use harness::halt::{Call, halt};
use harness::mesh::{Mesh, Options, Plan};
use harness::{Sidecar, wait};

use crate::upgrade::stuck_successor;

fn mesh(name: &str) -> Result<Mesh> {
    let plan = Plan {
        client: Options::new("client").by_agent().drain("0s", "10m"),
        ..Plan::by_agent()
    };
    let mut mesh = Mesh::of(name, &plan)?;
    mesh.serve(apps::echo, 9000)?;
    Ok(mesh)
}

/// The one that serves goes on, and is ready.
fn serves_on(mesh: &Mesh) -> Result<()> {
    assert_eq!(apps::crowd(&mesh.client.pod, mesh.vip4(9000), 20)?, 20);
    let sidecar = &mesh.client.sidecar;
    wait::until("it is ready", wait::SOON, || sidecar.is_ready())
}

/// Speaks as a second sidecar would, as far as it is told to, and prints the answers.
const SECOND: &str = r#"
import json, os, socket, sys
def say(to, message, fds=()):
    socket.send_fds(to, [json.dumps(message).encode()], list(fds))
    text, given, _, _ = socket.recv_fds(to, 16384, 250)
    return json.loads(text), given
ask = {"protocol": 2, "version": "test", "hbonePort": 15008, "shards": 1, "openPorts": [15008, 15020], "addresses": [], "strict": False}
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.connect("\0outrigger/agent")
step = sys.argv[1]
if step == "unasked":
    print(say(door, {"say": "succeed", "ask": ask, "generation": 1})[0])
    sys.exit()
answer, given = say(door, {"say": "ask", **ask})
print(answer["say"], len(given))
if step == "no-lease":
    print(say(door, {"say": "succeed", "ask": ask, "generation": 1})[0])
if step == "other-file":
    print(say(door, {"say": "succeed", "ask": ask, "generation": 1}, [os.open("/", os.O_RDONLY)])[0])
if step == "stale":
    former = socket.socket(fileno=given[0])
    answer, given = say(former, {"say": "ask", "identity": "spiffe://cluster.local/ns/demo/sa/client"})
    print(answer["say"], answer["descriptors"][0])
    stale = (answer["generation"] + 1) % 4
    print(say(door, {"say": "succeed", "ask": ask, "generation": stale}, given[:1])[0])
if step == "first-word":
    former = socket.socket(fileno=given[0])
    print(say(former, {"say": "taken"})[0])
"#;

fn second(sidecar: &Sidecar, step: &str) -> Result<String> {
    let words = ["env", "PATH=/usr/bin:/bin", "python3", "-c", SECOND, step];
    let command = sidecar.confined(&words.map(OsString::from))?;
    sidecar.pod().run_within(command, wait::SOON)?.ok()
}

#[test]
fn a_sidecar_that_was_not_handed_the_pod_over_is_refused_and_the_first_one_goes_on() -> Result<()> {
    let mesh = mesh("handover-refused")?;
    let sidecar = &mesh.client.sidecar;
    for (step, why) in [
        ("unasked", "it says its words in another order"),
        ("no-lease", "it has not shown the lease of the pod"),
        ("other-file", "not the lease"),
        ("stale", "it takes over from a sidecar with part"),
        ("first-word", "refused"),
    ] {
        let said = second(sidecar, step)?;
        ensure!(said.contains(why), "{step}: no {why:?} in {said}");
        serves_on(&mesh)?;
    }
    // Whoever had asked it, and has ended, keeps nobody out.
    let mut mesh = mesh;
    let old = mesh.client.sidecar.take_over()?;
    serves_on(&mesh)?;
    drop(old);
    Ok(())
}

/// What is there for a program of the pod, as any user. The directory is on the agent's host, where no container looks; here both
/// see the same files.
#[test]
fn no_program_of_the_pod_can_ask_a_sidecar_of_an_agent_for_its_pod() -> Result<()> {
    let mesh = mesh("handover-strangers")?;
    let pod = &mesh.client.pod;
    let names = pod.run("cat", ["/proc/net/unix"])?.ok()?;
    let abstract_names = names.split_whitespace().filter(|word| word.starts_with('@'));
    assert_eq!(abstract_names.collect::<Vec<_>>(), ["@outrigger/agent"]);
    let directory = mesh.fabric.agent_socket().with_extension("handover");
    let there = fs::metadata(&directory)?;
    assert_eq!((there.permissions().mode() & 0o777, there.uid()), (0o700, 0));
    assert_eq!(fs::read_dir(&directory)?.count(), 2, "one for each pod");
    let user = ["--reuid=65532", "--regid=65532", "--clear-groups"];
    let look = [&user[..], &["ls", directory.to_str().context("a name")?]].concat();
    let said = pod.run("setpriv", &look)?;
    ensure!(
        !said.status.success() && said.stderr.contains("Permission denied"),
        "{said:?}"
    );
    serves_on(&mesh)
}

#[test]
fn a_second_sidecar_waits_for_the_agent_that_is_down_and_takes_over_by_the_next_one() -> Result<()> {
    let mut mesh = mesh("handover-agent-down")?;
    let to = [mesh.vip4(9000), mesh.vip6(9000)];
    let (kept, opened) = Keep::open(&mesh.client.pod, &to, 5)?;
    ensure!(opened.get("ok") == Some(&10), "{opened:?}");
    mesh.fabric.kill_agent();
    let mut second = mesh.client.sidecar.spawn_alone()?;
    second.until("says that it waits", |process| {
        process.log().contains("waiting for the agent of this node")
    })?;
    serves_on(&mesh)?;
    mesh.fabric.start_agent()?;
    second.until("has taken the pod over", |process| {
        process.log().contains("has taken the pod over")
    })?;
    let mut first = mesh.client.sidecar.replace(second)?;
    serves_on(&mesh)?;
    assert_eq!(kept.close()?, 10, "those that the first one carries");
    ensure!(first.wait(wait::SOON)?.success(), "{}", first.log());
    Ok(())
}

#[test]
fn where_the_agent_ends_in_the_middle_of_a_takeover_the_first_sidecar_goes_on() -> Result<()> {
    let mut mesh = mesh("handover-agent-ends")?;
    for is_laid_down in [false, true] {
        let mut second = stuck_successor(&mut mesh)?;
        if is_laid_down {
            // The first one writes nothing any more.
            let wanted = |call: &Call| call.says("activate");
            let halted = halt(second.id(), || mesh.control.restart(), wanted);
            let halted = halted.with_context(|| second.log())?;
            mesh.fabric.kill_agent();
            halted.release()?;
        } else {
            mesh.fabric.kill_agent();
            mesh.control.restart()?;
        }
        let status = second.wait(wait::SOON)?;
        let said = second.log();
        ensure!(
            !status.success() && said.contains("the agent of this node has ended"),
            "{status}: {said}"
        );
        let told = |sidecar: &Sidecar| sidecar.log().matches("this one goes on").count();
        let so_far = usize::from(is_laid_down) + 1;
        wait::until("the first one goes on", wait::SOON, || {
            told(&mesh.client.sidecar) == so_far
        })?;
        serves_on(&mesh)?;
        mesh.fabric.start_agent()?;
    }
    let old = mesh.client.sidecar.take_over()?;
    serves_on(&mesh)?;
    drop(old);
    Ok(())
}
