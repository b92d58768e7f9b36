//! Where the host has no route, connect() fails as it does without a sidecar; where it has one, the application sees the
//! address that it would have sent from.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use harness::apps;
use harness::pod::Pod;
use harness::{Mesh, wait};
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};

/// A route of each kind, beside those that every pod has; two addresses to choose from.
const ROUTES: &str = "\
    address add 10.99.200.7/16 dev eth0
    address add fd99::77:7/64 dev eth0 nodad
    route add 10.101.0.0/16 via 10.99.0.1 src 10.99.200.7
    route add prohibit 10.102.0.0/16
    route add blackhole 10.103.0.0/16
    route add throw 10.104.0.0/16
    route add unreachable 10.105.0.0/16
    route add 10.105.7.0/24 via 10.99.0.1
    route add fd65::/64 via fd99::1 src fd99::77:7
    route add prohibit fd66::/64
    route add blackhole fd67::/64
";

const DESTINATIONS: [&str; 18] = [
    "10.98.0.7",
    "10.99.0.1",
    "10.101.0.7",
    "10.102.0.7",
    "10.103.0.7",
    "10.104.0.7",
    "10.105.0.7",
    "10.105.7.7",
    "10.99.255.255",
    "192.0.2.7",
    "224.0.0.7",
    "fd98::7",
    "fd99::1",
    "fd65::7",
    "fd66::7",
    "fd67::7",
    "2001:db8::7",
    "ff0e::7",
];

#[test]
fn connect_answers_as_without_a_sidecar() -> Result<()> {
    let mesh = Mesh::start("routes")?;
    let pod = &mesh.client.pod;
    pod.netns().ip_batch(ROUTES)?;
    as_bare(pod)?;

    // No default route, and no IPv6 to speak of: what Happy Eyeballs falls back from.
    pod.netns()
        .ip_batch("route del default via 10.99.0.1\nroute del default via fd99::1\n")?;
    as_bare(pod)?;
    assert_eq!(bare(pod, "192.0.2.7".parse()?)?, "ENETUNREACH");
    assert_eq!(bare(pod, "2001:db8::7".parse()?)?, "ENETUNREACH");
    pod.netns().ip_batch(&format!(
        "route add default via 10.99.0.1\naddress del fd99::77:7/64 dev eth0\naddress del {}/64 dev eth0\n",
        pod.ipv6()
    ))?;
    as_bare(pod)?;
    pod.netns().ip_batch("link set eth0 down\n")?;
    as_bare(pod)
}

#[test]
fn a_virtual_address_without_a_route_is_reached() -> Result<()> {
    let mut mesh = Mesh::start("vip-route")?;
    mesh.serve(apps::nginx, 8080)?;
    let client = mesh.client.pod.clone();
    let vips: [IpAddr; 2] = ["10.98.7.7".parse()?, "fd98::7:7".parse()?];
    for vip in vips {
        assert_eq!(
            intercepted(&client, &[vip])?,
            ["EHOSTUNREACH EHOSTUNREACH"],
            "{vip}"
        );
    }
    mesh.registry
        .update(|registry| registry.services[0].vips.extend(vips))?;
    for vip in vips {
        wait::until("the new virtual address is served", wait::SOON, || {
            apps::curl(&client, &apps::url((vip, 80))).is_ok_and(|out| out.stdout == "server-1\n")
        })?;
        let own: IpAddr = if vip.is_ipv4() {
            client.ipv4().into()
        } else {
            client.ipv6().into()
        };
        assert_eq!(intercepted(&client, &[vip])?, [own.to_string()]);
    }
    Ok(())
}

/// Waits until the sidecar has heard of what the namespace looks like now, and each answer is that of a bare socket. Both
/// are asked each time: the kernel itself takes a while to settle, as when it looks for duplicates of an address.
#[track_caller]
fn as_bare(pod: &Pod) -> Result<()> {
    let to: Vec<IpAddr> = DESTINATIONS
        .iter()
        .map(|ip| ip.parse())
        .collect::<Result<_, _>>()?;
    let (mut wanted, mut last) = (Vec::new(), Vec::new());
    wait::until_some("every destination answers as bare", wait::SOON, || {
        wanted = to
            .iter()
            .map(|to| Ok(twice(bare(pod, *to)?)))
            .collect::<Result<_>>()?;
        last = intercepted(pod, &to).unwrap_or_default();
        Ok((last == wanted).then_some(()))
    })
    .with_context(|| {
        let rows = to.iter().zip(&wanted).zip(&last);
        let wrong = rows.filter(|((_, wanted), got)| wanted != got);
        let wrong: Vec<String> = wrong
            .map(|((to, wanted), got)| format!("{to}: {got}, bare {wanted}"))
            .collect();
        wrong.join("\n")
    })
}

/// What fails at once does so for blocking sockets, too.
fn twice(answer: String) -> String {
    if answer.starts_with('E') {
        format!("{answer} {answer}")
    } else {
        answer
    }
}

/// What a socket outside of the pod's cgroup gets at once: its own address, or an errno.
fn bare(pod: &Pod, to: IpAddr) -> Result<String> {
    pod.run_in(|| {
        let to = SocketAddr::new(to, 9);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Ok(format!(
                "{:?}",
                Errno::from_raw(error.raw_os_error().context("an errno")?)
            )),
            _ => {
                let own = socket.local_addr()?.as_socket().context("an address")?;
                Ok(own.ip().to_string())
            }
        }
    })?
}

/// The same of a program in the pod; errors once from a socket that blocks not and once from one that does.
fn intercepted(pod: &Pod, to: &[IpAddr]) -> Result<Vec<String>> {
    const PROGRAM: &str = "
import errno, socket, sys
for ip in sys.argv[1:]:
    family = socket.AF_INET6 if ':' in ip else socket.AF_INET
    sock = socket.socket(family)
    sock.setblocking(False)
    error = sock.connect_ex((ip, 9))
    if error in (0, errno.EINPROGRESS):
        print(sock.getsockname()[0])
        continue
    blocking = socket.socket(family).connect_ex((ip, 9))
    print(errno.errorcode[error], errno.errorcode[blocking])
";
    let mut arguments = vec!["-c".to_owned(), PROGRAM.into()];
    arguments.extend(to.iter().map(ToString::to_string));
    let text = pod.run("/usr/bin/python3", arguments)?.ok()?;
    Ok(text.lines().map(Into::into).collect())
}
