//! Where a scenario is played: a client's pod, a server's pod, and addresses at which nobody can be reached. The same
//! names and addresses with and without sidecars. Starts no program of its own accord.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::Result;
use harness::pod::Pod;
use harness::{Fabric, Mesh};

/// Nobody listens there, in any pod.
pub(super) const CLOSED: u16 = 7;

pub(super) struct World {
    pub(super) client: Pod,
    pub(super) server: Pod,
    /// Outside the mesh, with no program in it.
    pub(super) outside: Pod,
    // Last: what the pods live in.
    _ground: Ground,
}

#[expect(dead_code, reason = "held for its end, when everything of it is removed")]
enum Ground {
    Bare(Fabric),
    Intercepted(Box<Mesh>),
}

impl World {
    pub(super) fn bare(kind: &str) -> Result<Self> {
        let fabric = Fabric::new(&format!("{kind}-bare"))?;
        // In the order of a mesh, for the same addresses.
        Ok(Self {
            client: fabric.pod("client")?,
            server: fabric.pod("server-1")?,
            outside: fabric.pod("outside")?,
            _ground: Ground::Bare(fabric),
        })
    }

    pub(super) fn intercepted(kind: &str) -> Result<Self> {
        let mesh = Mesh::start(kind)?;
        Ok(Self {
            client: mesh.client.pod.clone(),
            server: mesh.server().pod.clone(),
            outside: mesh.outside.clone(),
            _ground: Ground::Intercepted(Box::new(mesh)),
        })
    }

    /// The server's addresses, IPv4 first.
    pub(super) fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.server.addresses().map(|ip| SocketAddr::new(ip, port))
    }

    /// Addresses that fail, with what a bare kernel says of them. The last one says nothing: its connects time out.
    pub(super) fn dead(&self) -> Vec<(&'static str, SocketAddr)> {
        vec![
            ("refused in the mesh", (self.server.ipv4(), CLOSED).into()),
            ("refused in the mesh by IPv6", (self.server.ipv6(), CLOSED).into()),
            ("refused outside", (self.outside.ipv4(), CLOSED).into()),
            ("refused outside by IPv6", (self.outside.ipv6(), CLOSED).into()),
            ("unreachable", (unreachable(false), CLOSED).into()),
            ("unreachable by IPv6", (unreachable(true), CLOSED).into()),
            ("silent", (silent(false), CLOSED).into()),
        ]
    }

    /// A command in the client's pod for which these names stand for these addresses, in this order.
    pub(super) fn client_knowing(&self, program: &str, names: &[(&str, &[IpAddr])]) -> Result<Command> {
        let mut hosts = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for (name, addresses) in names {
            for address in *addresses {
                hosts += &format!("{address} {name}\n");
            }
        }
        let file = self.client.scratch().join("hosts");
        fs::write(&file, hosts)?;
        // A mount namespace of its own: the machine's file stays as it is.
        let mut command = self.client.command("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"")
            .arg(file)
            .arg(program);
        Ok(command)
    }
}

/// Every pod's routing refuses it with EHOSTUNREACH.
pub(super) fn unreachable(ipv6: bool) -> IpAddr {
    let address = if ipv6 { "fd98::1" } else { "10.98.0.1" };
    address.parse().expect("a constant address")
}

/// Routed, and answered by nobody.
pub(super) fn silent(ipv6: bool) -> IpAddr {
    let address = if ipv6 { "fd96::7" } else { "10.96.7.7" };
    address.parse().expect("a constant address")
}
