//! What is found is what the kernel does: each test in a network namespace of its own. They need root.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use socket2::{Domain, SockRef, Socket, Type};

use super::{Change, Changes, Listeners, RouteTable, Routes, gateways};
use crate::model::network::Path;

/// Two devices, two addresses of a family on one, and a route of each kind.
const NETWORK: &str = "\
    link set lo up
    link add one type veth peer name far-one
    link add two type veth peer name far-two
    link set one addrgenmode none
    link set two addrgenmode none
    link set far-one up
    link set far-two up
    link set one up
    link set two up
    address add 10.1.0.2/16 dev one
    address add 10.1.0.3/16 dev one
    address add 10.2.0.2/24 dev two
    address add fd01::2/64 dev one nodad
    address add fd02::2/64 dev two nodad
    address add 2001:db8:2::2/64 dev two nodad
    route add default via 10.2.0.1
    route add 10.3.0.0/16 via 10.1.0.1 src 10.1.0.3
    route add 10.3.1.0/24 via 10.2.0.1 metric 20
    route add 10.3.1.0/24 via 10.1.0.1 metric 10
    route add unreachable 10.4.0.0/16
    route add prohibit 10.5.0.0/16
    route add blackhole 10.6.0.0/16
    route add throw 10.7.0.0/16
    route add unreachable 10.8.0.0/16
    route add 10.8.8.0/24 via 10.1.0.1
    route add default via fd02::1
    route add fd03::/64 via fd01::1
    route add unreachable fd04::/64
    route add prohibit fd05::/64
    route add blackhole fd06::/64
    route add fd08::/64 via fd02::1 src 2001:db8:2::2
";

const DESTINATIONS: [&str; 29] = [
    "10.1.0.9",
    "10.1.255.255",
    "10.2.0.9",
    "10.3.0.9",
    "10.3.1.9",
    "10.4.0.9",
    "10.5.0.9",
    "10.6.0.9",
    "10.7.0.9",
    "10.8.0.9",
    "10.8.8.9",
    "10.8.9.0",
    "169.254.1.1",
    "192.0.2.1",
    "224.0.0.1",
    "239.255.255.255",
    "255.255.255.255",
    "fd01::9",
    "fd02::9",
    "fd03::9",
    "fd04::9",
    "fd05::9",
    "fd06::9",
    "fd07::9",
    "fd08::9",
    "2001:db8::9",
    "2a00::9",
    "2002::9",
    "ff0e::1",
];

#[test]
fn the_paths_are_what_connect_does() {
    in_network(NETWORK, || compare(&found()));
}

#[test]
fn a_host_without_ipv6_or_without_any_route_has_no_path() {
    in_network("link set lo up", || {
        compare(&found());
        assert_eq!(
            longest(&found(), "2a00::9".parse().unwrap()),
            Some(&Path::Fails(101))
        );
    });
    in_network(
        "link set lo up\n link add one type veth peer name far\n link set far up\n link set one up\n address add 10.1.0.2/16 dev one\n \
         route add default via 10.1.0.1",
        || {
            for of in ["one", "far", "lo"] {
                let switch = format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6");
                std::fs::write(switch, "1").expect("IPv6 off");
            }
            compare(&found());
        },
    );
}

#[test]
fn a_link_that_goes_down_takes_its_paths_along() {
    in_network(NETWORK, || {
        let before = found();
        ip("link set one down");
        let after = found();
        compare(&after);
        assert_ne!(before, after);
    });
}

#[test]
fn rules_beyond_the_usual_are_told() {
    in_network(NETWORK, || {
        assert!(!RouteTable::default().look().expect("routes").policy);
        for (family, rule) in [
            ("-4", "from 10.1.0.3 lookup 100"),
            ("-4", "fwmark 1 lookup main"),
            ("-6", "to fd00::/8 lookup 100"),
            ("-4", "priority 5 prohibit"),
        ] {
            ip(&format!("{family} rule add {rule}"));
            assert!(RouteTable::default().look().expect("routes").policy, "{rule}");
            ip(&format!("{family} rule del {rule}"));
        }
        assert!(!RouteTable::default().look().expect("routes").policy);
    });
}

#[test]
fn changes_are_heard() {
    in_network(NETWORK, || {
        run(async {
            let mut changes = Changes::watch().expect("a watch");
            for change in [
                "route add 10.9.0.0/16 via 10.1.0.1",
                "route del 10.9.0.0/16",
                "address add 10.1.0.4/16 dev one",
                "route add fd09::/64 via fd01::1",
                "address del fd01::2/64 dev one",
                "rule add from 10.1.0.3 lookup 100",
                "-6 rule add from fd01::2 lookup 100",
                "link set two down",
            ] {
                ip(change);
                heard(&mut changes, change).await;
            }
        });
    });
}

/// What has been heard of a change, in however many pieces.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

async fn heard(changes: &mut Changes, change: &str) -> Change {
    tokio::time::timeout(Duration::from_secs(10), changes.next())
        .await
        .unwrap_or_else(|_| panic!("{change} is not heard"))
        .expect("the socket works")
}

#[test]
fn a_change_of_one_route_asks_about_none_of_the_others() {
    in_network(NETWORK, || {
        let many: String = (0..=255)
            .map(|n| format!("route add 10.77.{n}.0/24 via 10.1.0.1\n"))
            .collect();
        ip_batch(&many);
        let mut table = RouteTable::default();
        let found = table.look().expect("routes").paths.len();
        assert!(found > 256);
        let before = table.questions();
        ip("route replace 10.77.7.0/24 via 10.2.0.1");
        let changed = ["10.77.7.0/24".parse().unwrap()].into();
        compare(&table.look_at(&changed).expect("routes").clone().paths);
        assert_eq!(table.questions() - before, 1);

        // Those within may have had nothing of their own.
        let around = ["10.77.0.0/16".parse().unwrap()].into();
        table.look_at(&around).expect("routes");
        assert_eq!(
            table.questions() - before,
            1 + 256,
            "the prefix itself is covered"
        );
    });
}

#[test]
fn a_look_at_what_has_changed_finds_what_a_look_at_everything_finds() {
    in_network(NETWORK, || {
        run(async {
            let mut table = RouteTable::default();
            // The kernel makes the route of an IPv6 address later than the address, in a work queue.
            let local = ["fd01::2/128", "fd02::2/128", "2001:db8:2::2/128"].map(|net| net.parse().unwrap());
            while !local
                .iter()
                .all(|net| table.look().expect("routes").paths.contains_key(net))
            {
                tokio::task::yield_now().await;
            }
            let mut changes = Changes::watch().expect("a watch");
            table.look().expect("routes");
            for change in [
                "route add 10.9.0.0/16 via 10.1.0.1",
                "route add 10.9.9.0/24 via 10.2.0.1",
                "route add unreachable 10.9.9.9/32",
                "route del 10.9.0.0/16",
                "route del 10.9.9.9/32",
                "route replace 10.9.9.0/24 via 10.1.0.1",
                "route del 10.3.1.0/24 metric 10",
                "route del default via 10.2.0.1",
                "route add default via 10.1.0.1",
                "route add fd09::/64 via fd01::1",
                "route del default via fd02::1",
                "-6 route add unreachable default",
                "route del fd03::/64",
            ] {
                ip(change);
                let Change::Routes(prefixes) = heard(&mut changes, change).await else {
                    panic!("{change}: only routes have changed");
                };
                let found = table.look_at(&prefixes).expect("routes").clone();
                compare(&found.paths);
                for (net, path) in &RouteTable::default().look().expect("routes").paths {
                    assert_eq!(found.paths.get(net), Some(path), "{change}: {net}");
                }
            }
            ip("address add 10.1.0.4/16 dev one");
            assert_eq!(heard(&mut changes, "an address").await, Change::Any);
        });
    });
}

#[test]
fn listening_sockets_are_found_with_their_cookies_and_cgroups() {
    in_network("link set lo up", || {
        assert_eq!(Listeners::default().look().expect("nobody"), []);
        let sockets = [
            TcpListener::bind("127.0.0.1:0").expect("bind"),
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind"),
            TcpListener::bind("[::1]:0").expect("bind"),
            TcpListener::bind("[::]:0").expect("bind"),
        ];
        let connected = std::net::TcpStream::connect(sockets[0].local_addr().unwrap()).expect("connect");
        let mut found: Vec<_> = Listeners::default()
            .look()
            .expect("sockets")
            .iter()
            .map(|s| (s.cookie, s.at, s.cgroup))
            .collect();
        let mut wanted: Vec<_> = sockets
            .iter()
            .map(|s| {
                let at = s.local_addr().unwrap();
                (SockRef::from(s).cookie().unwrap(), at, Some(own_cgroup()))
            })
            .collect();
        found.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(found, wanted, "and no connected ones");
        drop((sockets, connected));
        // A program that another test starts has copies of them from its fork to its exec.
        let closed = std::time::Instant::now();
        while let left = Listeners::default().look().expect("nobody")
            && !left.is_empty()
        {
            assert!(closed.elapsed() < Duration::from_secs(10), "{left:?}");
            std::thread::yield_now();
        }
    });
}

/// The number of the cgroup that this process is in.
fn own_cgroup() -> u64 {
    let read = |path| fs::read_to_string(path).expect("proc");
    let (mounts, own) = (read("/proc/thread-self/mounts"), read("/proc/self/cgroup"));
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|fields| fields[2] == "cgroup2").expect("mounted")[1].to_owned();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .expect("a cgroup");
    let directory = format!("{mount}{own}");
    fs::metadata(&directory).expect("its directory").ino()
}

fn compare(paths: &BTreeMap<IpNet, Path>) {
    for destination in DESTINATIONS {
        let to: IpAddr = destination.parse().expect("an address");
        assert_eq!(
            longest(paths, to).copied().unwrap_or(Path::Fails(101)),
            bare(to),
            "{destination}, of {paths:#?}"
        );
    }
}

/// What a connect() gives at once.
fn bare(to: IpAddr) -> Path {
    let to = SocketAddr::new(to, 9);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("socket");
    socket.set_nonblocking(true).expect("nonblocking");
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => {
            Path::Fails(error.raw_os_error().expect("an errno") as u32)
        }
        _ => Path::From(
            socket
                .local_addr()
                .expect("getsockname")
                .as_socket()
                .expect("an address")
                .ip(),
        ),
    }
}

#[test]
fn next_hops_are_those_of_every_route_of_both_families() {
    let commands = "link set lo up\nlink add v type veth peer name w\nlink set v up\nlink set w up\naddr add 10.99.0.2/24 dev v\n\
        addr add fd99::2/64 dev v nodad\nroute add default via 10.99.0.1\nroute add 10.5.0.0/16 via 10.99.0.7\n\
        route add 10.6.0.0/16 dev v\nroute add default via fd99::1\n";
    in_network(commands, || {
        let wanted: [IpAddr; 3] = ["10.99.0.1", "10.99.0.7", "fd99::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(gateways().expect("routes"), wanted.into());
    });
}

fn found() -> BTreeMap<IpNet, Path> {
    let Routes { paths, policy } = RouteTable::default().look().expect("routes").clone();
    assert!(!policy);
    paths
}

fn longest(paths: &BTreeMap<IpNet, Path>, ip: IpAddr) -> Option<&Path> {
    let held = paths.iter().filter(|(net, _)| net.contains(&ip));
    held.max_by_key(|(net, _)| net.prefix_len()).map(|(_, path)| path)
}

/// Runs the body on a thread with a network namespace of its own.
fn in_network(commands: &str, body: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace: run this test as root");
            ip_batch(commands);
            body();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn ip_batch(commands: &str) {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("ip");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(commands.as_bytes())
        .expect("ip reads");
    assert!(child.wait().expect("ip").success(), "{commands}");
}

fn ip(command: &str) {
    let status = Command::new("ip").args(command.split(' ')).status();
    assert!(status.is_ok_and(|status| status.success()), "ip {command}");
}
