//! A proxy that is killed, alone or while another one takes its pod over. What is not served is refused or waits: nothing
//! passes in plaintext, and no connect() succeeds falsely.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use harness::apps::{self, Attempt, Attempts, Keep, Outcome};
use harness::halt::{Call, Halted, halt};
use harness::mesh::{Options, Plan, agent};
use harness::process::Process;
use harness::{Capture, Mesh, Sidecar, wait};

use crate::upgrade::stuck_successor;

/// What applications say, and nobody else.
const TEXT: &str = "words-of-an-application";
const OPEN: u16 = 9000;
const CLOSED: u16 = 9001;
/// Connections a second, of each program.
const RATE: u32 = 100;

/// A client, and a server that takes no plaintext.
fn mesh(name: &str) -> Result<Mesh> {
    let plan = Plan {
        client: Options::new("client"),
        server: Options::new("server").strict(),
        ..Plan::default()
    };
    let mut mesh = Mesh::of(name, &plan)?;
    mesh.serve(apps::echo, OPEN)?;
    Ok(mesh)
}

/// The server as the client knows it, at a port.
fn servers(mesh: &Mesh, port: u16) -> Vec<SocketAddr> {
    let addresses = mesh.server().pod.addresses().map(|ip| (ip, port).into());
    [mesh.vip4(port), mesh.vip6(port)]
        .into_iter()
        .chain(addresses)
        .collect()
}

/// All the time: from the client in the mesh, and from outside past it, which has to fail.
struct Traffic {
    open: Vec<SocketAddr>,
    mesh: Attempts,
    plaintext: Attempts,
}

impl Traffic {
    fn start(mesh: &Mesh) -> Result<Self> {
        let open = servers(mesh, OPEN);
        let all = [&*open, &servers(mesh, CLOSED)].concat();
        let past: Vec<SocketAddr> = mesh.server().pod.addresses().map(|ip| (ip, OPEN).into()).into();
        let mut traffic = Self {
            mesh: Attempts::start(&mesh.client.pod, RATE, TEXT, &all)?,
            plaintext: Attempts::start(&mesh.outside, RATE, TEXT, &past)?,
            open,
        };
        traffic.until_served(UNIX_EPOCH)?;
        Ok(traffic)
    }

    /// Until each server has served one that has begun since.
    fn until_served(&mut self, since: SystemTime) -> Result<()> {
        self.mesh.until_served(since, &self.open)
    }

    /// All from the client; what may never be was not.
    fn stop(self) -> Result<Vec<Attempt>> {
        let is_refused = |one: &&Attempt| matches!(one.outcome, Outcome::Refused(_));
        let past = self.plaintext.stop()?;
        ensure!(
            !past.is_empty() && past.iter().all(|one| is_refused(&one)),
            "{past:?}"
        );
        let all = self.mesh.stop()?;
        let closed = all.iter().filter(|one| one.server.port() == CLOSED);
        let told: Vec<_> = closed.filter(|one| !is_refused(one)).collect();
        ensure!(told.is_empty(), "connected to where nobody listens: {told:?}");
        Ok(all)
    }
}

/// Connections that were open in that moment may have been cut; no other may have been connected in vain.
fn truthful(all: &[Attempt], cuts: &[[SystemTime; 2]]) -> Result<()> {
    let was_open = |one: &Attempt| {
        cuts.iter()
            .any(|[from, to]| one.begun <= *to && one.ended >= *from)
    };
    let cut = all.iter().filter(|one| matches!(one.outcome, Outcome::Cut(_)));
    let in_vain: Vec<_> = cut.filter(|one| !was_open(one)).collect();
    ensure!(in_vain.is_empty(), "connected, and not served: {in_vain:?}");
    Ok(())
}

/// Those at the server that have begun in between.
fn between(all: &[Attempt], [from, to]: [SystemTime; 2]) -> Vec<&Attempt> {
    let of_server = all.iter().filter(|one| one.server.port() == OPEN);
    of_server
        .filter(|one| one.begun > from && one.begun < to)
        .collect()
}

#[test]
fn a_proxy_that_is_killed_and_started_again_lets_nothing_through_and_tells_nothing_false() -> Result<()> {
    let mut mesh = mesh("killed")?;
    let capture = Capture::start(&mesh.fabric)?;
    let mut traffic = Traffic::start(&mesh)?;
    let (mut kills, mut gaps) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for of_client in [true, false] {
            let sidecar = match of_client {
                true => &mut mesh.client.sidecar,
                false => &mut mesh.servers[0].sidecar,
            };
            let killing = SystemTime::now();
            sidecar.kill();
            let killed = SystemTime::now();
            sidecar.restart()?;
            traffic.until_served(killed)?;
            kills.push([killing, killed]);
            gaps.push((of_client, [killed, SystemTime::now()]));
        }
    }
    let open = traffic.open.clone();
    let all = traffic.stop()?;
    for (of_client, gap) in gaps {
        tell(of_client, gap[0], &between(&all, gap), &open);
    }
    truthful(&all, &kills)?;
    let recording = capture.stop()?;
    let plain = recording.who_sent(TEXT.as_bytes());
    assert!(!recording.holds(TEXT.as_bytes()), "{plain:?}");
    Ok(())
}

/// How long nobody was served: the test asserts no time.
fn tell(of_client: bool, killed: SystemTime, attempts: &[&Attempt], open: &[SocketAddr]) {
    let first = |server: &SocketAddr| {
        let of_it = attempts.iter().filter(|one| one.server == *server);
        let served = of_it.filter(|one| one.outcome == Outcome::Served);
        served
            .map(|one| one.ended.duration_since(killed).unwrap_or_default())
            .min()
    };
    let waited = |one: &&Attempt| one.ended.duration_since(one.begun).unwrap_or_default();
    println!(
        "{} killed: every address serves again after {:?}; of {} meanwhile {} are refused, the longest wait is {:?}",
        if of_client {
            "client's proxy"
        } else {
            "server's proxy"
        },
        open.iter().filter_map(first).max().unwrap_or_default(),
        attempts.len(),
        attempts
            .iter()
            .filter(|one| one.outcome != Outcome::Served)
            .count(),
        attempts.iter().map(waited).max().unwrap_or_default(),
    );
}

/// Moments of a takeover, from the owner's last word to the new proxy's.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The owner writes nothing any more, and the new proxy has written nothing yet.
    LaidDown,
    /// Half of the programs are the new proxy's. Where an agent attaches them the end of the new proxy does not stop it.
    HalfAttached,
    /// All of them, and the owner has not heard of it.
    NotTaken,
}

impl Moment {
    fn all() -> impl Iterator<Item = Self> {
        let all = [Self::LaidDown, Self::HalfAttached, Self::NotTaken];
        let is_one = |moment: &Self| !agent::is_default() || !matches!(moment, Self::HalfAttached);
        all.into_iter().filter(is_one)
    }

    /// Halts a second proxy, which waits for its certificate, at that moment.
    fn halt(self, mesh: &mut Mesh, second: &Process) -> Result<Halted> {
        let (mut asked, mut replaced) = (false, 0);
        let wanted = move |call: &Call| {
            asked |= call.says("layDown");
            replaced += usize::from(call.replaces_a_program());
            match self {
                Self::LaidDown => asked && (call.is_bpf() || call.says("activate")),
                Self::HalfAttached => asked && replaced == 5,
                Self::NotTaken => call.says("taken"),
            }
        };
        halt(second.id(), || mesh.control.restart(), wanted).with_context(|| second.log())
    }
}

#[test]
fn the_owner_serves_on_when_the_new_proxy_is_killed_in_the_middle_of_a_takeover() -> Result<()> {
    for moment in Moment::all() {
        let mut mesh = mesh("successor-killed")?;
        show_debug(&mesh.client.sidecar)?;
        let (kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(OPEN), mesh.vip6(OPEN)], 25)?;
        assert_eq!(opened["ok"], 50);
        let mut traffic = Traffic::start(&mesh)?;
        let mut second = stuck_successor(&mut mesh)?;
        let halting = SystemTime::now();
        let halted = moment.halt(&mut mesh, &second)?;
        let sidecar = &mesh.client.sidecar;
        // The owner's next look at its interception falls into this.
        sidecar.until_log("interception is not tried meanwhile")?;
        second.kill();
        drop(halted);
        sidecar.until_log("this one goes on")?;
        let restored = SystemTime::now();
        traffic.until_served(restored)?;
        let all = traffic.stop()?;
        truthful(&all, &[[halting, restored]])?;
        // Until the first of its programs is attached nobody comes to the new proxy.
        let since = match moment {
            Moment::LaidDown => UNIX_EPOCH,
            Moment::HalfAttached | Moment::NotTaken => restored,
        };
        let all = between(&all, [since, SystemTime::now()]);
        ensure!(
            all.iter().all(|one| one.outcome == Outcome::Served),
            "{moment:?}: {all:?}"
        );
        assert_eq!(kept.close()?, 50, "{moment:?}: those that the owner carries");

        assert_eq!(sidecar.metric(PROVEN, &[])?, 4.0);
        assert!(sidecar.is_ready());
        sidecar.detach_by_force()?;
        wait::until("the owner notices that nothing is attached", wait::SOON, || {
            sidecar.metric(PROVEN, &[]).is_ok_and(|proven| proven == 0.0) && !sidecar.is_ready()
        })?;
    }
    Ok(())
}

const PROVEN: &str = "outrigger_interception_proven";

#[test]
fn the_new_proxy_serves_when_the_owner_is_killed_in_the_middle_of_a_takeover() -> Result<()> {
    for moment in Moment::all() {
        let mut mesh = mesh("owner-killed-at")?;
        let mut traffic = Traffic::start(&mesh)?;
        let second = stuck_successor(&mut mesh)?;
        let halted = moment.halt(&mut mesh, &second)?;
        let mut first = mesh.client.sidecar.replace(second)?;
        let killing = SystemTime::now();
        first.kill();
        let killed = SystemTime::now();
        halted.release()?;
        mesh.client.sidecar.until_log("has taken the pod over")?;
        traffic.until_served(killed)?;
        let all = traffic.stop()?;
        truthful(&all, &[[killing, killed]])?;
        wait::until("it is ready", wait::SOON, || mesh.client.sidecar.is_ready())?;
    }
    Ok(())
}

/// What it does while nothing is wrong.
fn show_debug(sidecar: &Sidecar) -> Result<()> {
    let socket = sidecar.admin_socket().display().to_string();
    let put = [
        "-q",
        "--silent",
        "--fail",
        "-X",
        "PUT",
        "-d",
        "info,outrigger::proxy=debug",
        "--unix-socket",
        &socket,
    ];
    let url = "http://localhost/loglevel";
    sidecar
        .pod()
        .run("curl", put.iter().chain([&url]))?
        .ok()
        .map(drop)
}
