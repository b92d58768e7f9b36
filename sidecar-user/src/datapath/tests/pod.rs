//! A pod for one test: a network namespace with a veth to a neighbour, a cgroup and a bpffs.
//!
//! Sockets take the cgroup of the process that makes them, and a process has one. So each test runs in a process
//! of its own: this one again, with the test's name. What belongs to the neighbour is made before that process
//! enters the pod's cgroup.

use std::any::type_name;
use std::cell::RefCell;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::{env, process, thread};

use bytemuck::Pod as Plain;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use sidecar_ebpf::abi::{Listener, map};
use socket2::{Domain, Socket, Type};

use super::super::install::pins;
use super::super::map::Map;
use super::super::{Config, Datapath, Error, LISTENERS, Lease, PodTarget, Policy, Steered};

pub(super) const POD4: &str = "10.99.0.2";
pub(super) const POD6: &str = "fd99::2";
pub(super) const NEIGHBOUR4: &str = "10.99.0.1";
pub(super) const NEIGHBOUR6: &str = "fd99::1";

/// Set in the process that runs a test: the directory of its pod.
const DIRECTORY: &str = "OUTRIGGER_TEST_POD";
/// Set in a process that plays a proxy: it attaches, says so, and waits to be killed.
const PROXY: &str = "OUTRIGGER_TEST_PROXY";
/// Set in both: the name of the test.
const NAME: &str = "OUTRIGGER_TEST_NAME";
const READY: &str = "the proxy has attached";
/// A socket for each connection attempt from the neighbour.
const SOCKETS: usize = 12;
const PATIENCE: Duration = Duration::from_secs(20);
/// A number: how many times longer a wait may take, for a machine that is emulated.
const FACTOR: &str = "OUTRIGGER_TEST_PATIENCE";

pub(super) struct Pod {
    pub(super) config: Config,
    /// Serve outside of the pod.
    pub(super) neighbour4: TcpListener,
    pub(super) neighbour6: TcpListener,
    sockets4: RefCell<Vec<Socket>>,
    sockets6: RefCell<Vec<Socket>>,
    sleeper: Child,
    /// The last one, if it still listens.
    outbound: RefCell<Weak<TcpListener>>,
    /// Of the last attachment: this process is one owner, which may attach again.
    lease: RefCell<Option<Lease>>,
}

/// Runs a test's body in a pod.
pub(super) fn in_pod<F: FnOnce(&Pod)>(body: F) {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test makes network namespaces and cgroups: run it as root"
    );
    if let Some(directory) = env::var_os(DIRECTORY) {
        let directory = Path::new(&directory);
        if env::var_os(PROXY).is_some() {
            play_proxy(&config(directory));
        }
        body(&Pod::enter(directory));
        return;
    }

    // `outrigger::datapath::tests::root::fact::{{closure}}`
    let name = type_name::<F>();
    let name = name.split_once("::").map_or(name, |(_, path)| path);
    let name = name.strip_suffix("::{{closure}}").unwrap_or(name);
    let host = Host::new();
    let output = again(name)
        .env(DIRECTORY, &host.directory)
        .output()
        .expect("the test runs again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in the pod:\n{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // What it measures, see `control_cost`.
    println!("{text}");
}

/// Waits for something that is bound to happen.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let (start, limit) = (Instant::now(), patience());
    while !holds() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        thread::yield_now();
    }
}

fn patience() -> Duration {
    let factor = env::var(FACTOR).map_or(1, |text| text.parse().expect("a whole number"));
    PATIENCE * factor
}

impl Pod {
    /// Makes the namespaces, and moves this process in.
    fn enter(directory: &Path) -> Self {
        let config = config(directory);
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("the neighbour's namespaces");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .expect("private mounts");
        mount(
            Some("bpf"),
            &bpffs(directory),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("bpffs");
        let mut sleeper = Command::new("sleep");
        sleeper.arg("infinity");
        // SAFETY: a system call with a number. Without it the sleeper outlives a test whose process is killed, and with it the
        // pipe that the test's output is read from until its end.
        unsafe { sleeper.pre_exec(|| Ok(set_pdeathsig(Signal::SIGKILL)?)) };
        let sleeper = sleeper.spawn().expect("sleep");
        ip("link set lo up");
        let sockets = |domain| {
            RefCell::new(
                (0..SOCKETS)
                    .map(|_| Socket::new(domain, Type::STREAM, None).expect("socket"))
                    .collect(),
            )
        };
        let (sockets4, sockets6) = (sockets(Domain::IPV4), sockets(Domain::IPV6));
        let (socket4, socket6) = (
            Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket"),
            Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket"),
        );

        unshare(CloneFlags::CLONE_NEWNET).expect("the pod's namespace");
        ip(&format!(
            "link add eth0 type veth peer name eth0 netns {}",
            sleeper.id()
        ));
        let neighbour = format!("/proc/{}/ns/net", sleeper.id());
        for (enter, addresses) in [
            (None, [POD4, POD6]),
            (Some(neighbour.as_str()), [NEIGHBOUR4, NEIGHBOUR6]),
        ] {
            let run = |command: &str| match enter {
                Some(netns) => run("nsenter", &format!("--net={netns} ip {command}")),
                None => ip(command),
            };
            run("link set lo up");
            run(&format!("addr add {}/24 dev eth0", addresses[0]));
            run(&format!("addr add {}/64 dev eth0 nodad", addresses[1]));
            run("link set eth0 up");
        }
        let at = |ip: &str| SocketAddr::new(ip.parse().expect("an address"), 0);
        let neighbour4 = listen(socket4, at(NEIGHBOUR4));
        let neighbour6 = listen(socket6, at(NEIGHBOUR6));
        fs::write(config.cgroup.join("cgroup.procs"), process::id().to_string()).expect("enter the cgroup");
        Self {
            config,
            neighbour4,
            neighbour6,
            sockets4,
            sockets6,
            sleeper,
            outbound: RefCell::default(),
            lease: RefCell::default(),
        }
    }

    pub(super) fn attach(&self, inbound: Option<&TcpListener>) -> Datapath {
        self.attach_as(&self.config, inbound)
            .unwrap_or_else(|e| panic!("attach: {e}"))
    }

    pub(super) fn attach_as(
        &self,
        config: &Config,
        inbound: Option<&TcpListener>,
    ) -> Result<Datapath, Error> {
        let outbound = self.outbound.borrow().upgrade();
        let steered = Steered {
            inbound: inbound.map(AsFd::as_fd),
            outbound: outbound.as_ref().map(AsFd::as_fd),
            hbone: None,
        };
        let lease = self.lease(&config.pins)?;
        let datapath = Datapath::attach(config, PodTarget::of(config)?, lease)?;
        datapath.session().steer(0, steered)?;
        Ok(datapath)
    }

    /// The one that an attachment of this process has already, or a new one.
    pub(super) fn lease(&self, pins: &Path) -> Result<Lease, Error> {
        let shared = |lease: &Lease| lease.share(pins);
        if let Some(lease) = self.lease.borrow().as_ref().and_then(shared) {
            return Ok(lease);
        }
        let lease = Lease::take(pins)?;
        *self.lease.borrow_mut() = lease.share(pins);
        Ok(lease)
    }

    /// One of the maps of the last attachment.
    pub(super) fn map<K: Plain, V: Plain>(&self, name: &'static str) -> Result<Map<K, V>, Error> {
        Map::pinned(name, &pins::map(&self.config.pins, name))
    }

    /// As if this process, which has attached, had ended.
    pub(super) fn give_up(&self) {
        self.lease.take();
    }

    /// The dual-stack listener that redirected connections arrive at, before and after the programs are attached.
    pub(super) fn outbound(&self) -> Arc<TcpListener> {
        let listener = Arc::new(steered());
        if let Ok(slots) = self.map(map::LISTENERS) {
            let settings = pins::pinned_settings(&self.config.pins).expect("readable");
            let slot: u32 = Listener::Outbound.slot(settings.first_shard.into());
            slots.set(&slot, &listener.as_raw_fd()).expect("a slot");
        }
        *self.outbound.borrow_mut() = Arc::downgrade(&listener);
        listener
    }

    pub(super) fn inbound(&self) -> TcpListener {
        steered()
    }

    /// A socket in the neighbour's network, outside of the pod's cgroup.
    pub(super) fn outsider(&self, to: SocketAddr) -> Socket {
        let pool = if to.is_ipv4() {
            &self.sockets4
        } else {
            &self.sockets6
        };
        pool.borrow_mut().pop().expect("another socket")
    }

    /// A process that has attached, and listens for redirected connections until it is killed.
    pub(super) fn spawn_proxy(&self) -> Proxy {
        let name = env::var(NAME).expect("set by in_pod");
        let mut child = again(&name)
            .env(PROXY, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the proxy starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let ready = out.lines().map_while(Result::ok).any(|line| line.contains(READY));
        assert!(ready, "the proxy has attached");
        Proxy(child)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // It only keeps the neighbour's namespace; if it is gone, so is its purpose.
        let _ = self.sleeper.kill();
        let _ = self.sleeper.wait();
    }
}

/// The number of the pod's cgroup.
pub(super) fn own_cgroup() -> u64 {
    let directory = env::var_os(DIRECTORY).expect("set by in_pod");
    let cgroup = config(Path::new(&directory)).cgroup;
    fs::metadata(cgroup).expect("a cgroup").ino()
}

/// A cgroup below the pod's, in which this process is not, and the configuration that names it.
pub(super) struct Elsewhere(pub(super) Config);

impl Elsewhere {
    pub(super) fn new(pod: &Pod) -> Self {
        let cgroup = pod.config.cgroup.join("elsewhere");
        fs::create_dir(&cgroup).expect("a cgroup");
        Self(Config {
            cgroup,
            ..pod.config.clone()
        })
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // What is left is told of by the process that made the pod's.
        let _ = fs::remove_dir(&self.0.cgroup);
    }
}

/// Another process, killed at the latest when the test ends.
pub(super) struct Proxy(Child);

impl Proxy {
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    pub(super) fn kill(mut self) {
        self.0.kill().expect("SIGKILL");
        self.0.wait().expect("it is gone");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Already gone after `kill`.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn play_proxy(config: &Config) -> ! {
    let (outbound, inbound) = (steered(), steered());
    let steered = Steered {
        inbound: Some(inbound.as_fd()),
        outbound: Some(outbound.as_fd()),
        hbone: None,
    };
    let lease = Lease::take(&config.pins).unwrap_or_else(|e| panic!("lease: {e}"));
    let attached = PodTarget::of(config).and_then(|pod| Datapath::attach(config, pod, lease));
    let datapath = attached.unwrap_or_else(|e| panic!("attach: {e}"));
    datapath
        .session()
        .steer(0, steered)
        .unwrap_or_else(|e| panic!("steer: {e}"));
    println!("{READY}");
    loop {
        thread::park();
    }
}

/// What the outer process makes, and takes away when the test has ended in whatever way.
struct Host {
    directory: PathBuf,
}

impl Host {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "outrigger-datapath-{}-{}",
            process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let directory = env::temp_dir().join(name);
        let host = Self { directory };
        fs::create_dir_all(bpffs(&host.directory)).expect("a directory");
        fs::create_dir(cgroup(&host.directory)).expect("a cgroup");
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let cgroup = cgroup(&self.directory);
        let events = cgroup.join("cgroup.events");
        let (start, limit) = (Instant::now(), patience());
        while fs::read_to_string(&events).is_ok_and(|text| text.contains("populated 1"))
            && start.elapsed() < limit
        {
            thread::yield_now();
        }
        for result in [fs::remove_dir(&cgroup), fs::remove_dir_all(&self.directory)] {
            if let Err(error) = result {
                eprintln!("{} is left behind: {error}", self.directory.display());
            }
        }
    }
}

fn bpffs(directory: &Path) -> PathBuf {
    directory.join("bpf")
}

/// Below the cgroup2 mount, wherever that is.
fn cgroup(directory: &Path) -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").expect("/proc/mounts");
    let root = mounts
        .lines()
        .find_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [_, at, "cgroup2", ..] => Some(at),
            _ => None,
        })
        .expect("cgroup2 is mounted");
    Path::new(root).join(directory.file_name().expect("a name"))
}

fn config(directory: &Path) -> Config {
    Config {
        cgroup: cgroup(directory),
        netns: None,
        pins: bpffs(directory).join("node/pod"),
        hbone_port: 15008,
        shards: 1,
        open_ports: vec![15008],
        pod_addresses: [POD4, POD6].map(|ip| ip.parse().expect("an address")).into(),
        strict: false,
        allow_whole_host: false,
        policy: Policy::default(),
    }
}

/// This test binary, for one test.
fn again(name: &str) -> Command {
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command
        .args(["--exact", name, "--include-ignored", "--nocapture"])
        .arg("--test-threads=1")
        .env(NAME, name);
    command
}

/// A listener that the programs bring connections to.
pub(super) fn steered() -> TcpListener {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None).expect("socket");
    socket.set_only_v6(false).expect("dual stack");
    listen(socket, SocketAddr::from((LISTENERS.to_ipv6_mapped(), 0)))
}

fn listen(socket: Socket, address: SocketAddr) -> TcpListener {
    socket.set_reuse_address(true).expect("reuse");
    socket
        .bind(&address.into())
        .unwrap_or_else(|e| panic!("bind {address}: {e}"));
    socket.listen(1024).expect("listen");
    socket.into()
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) {
    let status = Command::new(program).args(arguments.split(' ')).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{program} {arguments}"
    );
}
