//! What would the programs do? Asks the very decision that they make, with what the kernel's maps hold now.
//!
//! Opens no connection, and knows nothing of what the proxy does with those that it gets.

use std::net::{IpAddr, SocketAddr};

use sidecar_ebpf::abi::{Counter, Path};
use sidecar_ebpf::addr::{Endpoint, Ip, Port};
use sidecar_ebpf::verdict::{self, Arriving, Connecting, Facts, InboundFacts, Lookup};

use super::super::Error;
use super::super::ip::kernel_ip;
use super::super::policy::{Direction, Rule};
use super::control::Control;
use super::port_maps::PortMaps;
use super::settings::Switches;
use super::table::Table;
use super::{PolicyMap, routes};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Explain {
    switches: Switches,
    policy: PolicyMap,
    routes: Table<routes::Key, Path>,
    ports: PortMaps,
    /// `None`: whoever loads the programs of one pod tells them of no probes.
    probes: Option<Control>,
}

/// What the programs would do with a connection, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub action: Action,
    pub reason: &'static str,
    /// The counter that says how often it happened.
    pub counter: &'static str,
    /// What comes before policy decides without it.
    pub asked_policy: bool,
    /// The rule of the policy that holds for it, where it was asked and has one.
    pub rule: Option<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// As if there were no proxy.
    Leave,
    /// Through the proxy.
    Take(Connect),
    /// The application, or the client, is refused.
    Refuse,
    /// connect() fails with this errno.
    Fail(u32),
}

/// When connect() returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connect {
    /// When the upstream has answered.
    Truthful,
    /// At once, because a rule says so.
    Optimistic,
    /// At once, because nothing holds connections here.
    NotHeld,
}

impl Explain {
    pub(super) fn new(
        switches: Switches,
        policy: PolicyMap,
        routes: Table<routes::Key, Path>,
        ports: PortMaps,
        probes: Option<Control>,
    ) -> Self {
        Self {
            switches,
            policy,
            routes,
            ports,
            probes,
        }
    }

    /// A socket of the application's, bound to no device, that connects. `protocol` as in the IP header.
    pub fn outbound(&self, protocol: u32, to: SocketAddr) -> Result<Verdict, Error> {
        let settings = self.switches.current();
        let (policy, rule) = self.policy.explain(Direction::Outbound, to.ip(), to.port())?;
        let path = self.path(to.ip())?;
        let socket = Connecting {
            protocol,
            bypass: None,
            probe: None,
            to: endpoint(to),
            from: Ip::from_v6([0; 4]),
            device: 0,
        };
        let mut asked = false;
        let verdict = verdict::connect(&socket, &settings, || {
            asked = true;
            Facts { policy, path }
        });
        let (action, counter) = match verdict {
            verdict::Connect::Pass(why) => (Action::Leave, why),
            verdict::Connect::Deliver(_) => unreachable!("an application's socket has no mark of the proxy"),
            verdict::Connect::Deny(why) => (Action::Refuse, why),
            verdict::Connect::Fail(errno, why) => (Action::Fail(errno), why),
            verdict::Connect::Redirect(redirect) => {
                let connect = match (settings.hold, redirect.optimistic) {
                    (0, _) => Connect::NotHeld,
                    (_, true) => Connect::Optimistic,
                    (_, false) => Connect::Truthful,
                };
                (Action::Take(connect), Counter::Redirected)
            }
        };
        Ok(Verdict::new(action, counter, asked, rule))
    }

    /// Somebody outside of the pod, at `from`, who dials the application at `to`.
    pub fn inbound(&self, protocol: u32, from: IpAddr, to: SocketAddr) -> Result<Verdict, Error> {
        /// Any but loopback's.
        const FROM_OUTSIDE: u32 = 2;
        let settings = self.switches.current();
        let (policy, rule) = self.policy.explain(Direction::Inbound, from, to.port())?;
        let listening = self.ports.is_served(to);
        let probe = match &self.probes {
            Some(control) => control.is_probe(from, to.port())?,
            None => false,
        };
        let attempt = Arriving {
            protocol,
            from: kernel_ip(from),
            from_port: Port::new(0),
            to: endpoint(to),
            ingress: FROM_OUTSIDE,
        };
        let mut asked = false;
        let facts = || {
            asked = true;
            InboundFacts {
                policy,
                listening,
                probe,
            }
        };
        // Somebody outside is asked about, whom nobody redirects.
        let verdict = verdict::lookup(&attempt, &settings, || false, facts);
        let (action, counter) = match verdict {
            Lookup::Pass(why) => (Action::Leave, why),
            Lookup::Tunnel => (Action::Leave, Counter::InboundPassed),
            Lookup::Drop(why) => (Action::Refuse, why),
            Lookup::Steer | Lookup::Redirected => (Action::Take(Connect::NotHeld), Counter::Steered),
        };
        // A probe passes whatever the policy says.
        let asked = asked && counter != Counter::InboundPassedProbe;
        let mut verdict = Verdict::new(action, counter, asked, rule);
        // One counter for three causes.
        if counter == Counter::InboundPassed {
            if protocol != IPPROTO_TCP {
                verdict.reason = ONLY_TCP;
            } else if settings.open_ports.contains(&Port::new(to.port())) {
                verdict.reason = "the proxy itself serves outsiders on this port";
            }
        }
        Ok(verdict)
    }

    fn path(&self, to: IpAddr) -> Result<Option<Path>, Error> {
        Ok(self.routes.get(&routes::key(&to.into()))?)
    }
}

impl Verdict {
    fn new(action: Action, counter: Counter, asked_policy: bool, rule: Option<Rule>) -> Self {
        let name = Counter::ALL.iter().find(|(known, _)| *known == counter);
        Self {
            action,
            reason: reason(counter),
            counter: name.map_or("", |(_, name)| name),
            asked_policy,
            rule: rule.filter(|_| asked_policy),
        }
    }
}

fn endpoint(at: SocketAddr) -> Endpoint {
    Endpoint {
        ip: kernel_ip(at.ip()),
        port: Port::new(at.port()),
    }
}

const IPPROTO_TCP: u32 = 6;
const ONLY_TCP: &str = "only TCP is intercepted";

fn reason(counter: Counter) -> &'static str {
    match counter {
        Counter::PassedProtocol => ONLY_TCP,
        Counter::PassedLocal => "loopback and the pod's own addresses never leave the pod",
        Counter::PassedSpecial => "it is no host: the kernel itself refuses multicast, broadcast and port 0",
        Counter::PassedPolicy | Counter::InboundPassedPolicy => "the interception policy leaves it alone",
        Counter::PassedDevice => {
            "an IPv6 link-local address means nothing without an interface, which a proxy cannot keep"
        }
        Counter::DeniedDevice => {
            "an IPv6 link-local address cannot be redirected, and strict mode lets nothing past the proxy"
        }
        Counter::FailedRoute => "this host has no route to it",
        Counter::DeniedSettings | Counter::DroppedSettings => {
            "the programs in the kernel belong to another version of the proxy"
        }
        Counter::Redirected => "the kernel redirects it to the proxy",
        Counter::Steered => "the kernel steers it to the proxy",
        Counter::InboundPassed => "it comes from the pod itself",
        Counter::InboundPassedProbe => {
            "it is a probe of the kubelet: it comes from an address of the pod's own node, to a port that a probe or a hook of \
             the pod's containers names, and passes the proxy to see the application as it is"
        }
        Counter::DroppedClosed => "the application does not listen on this port",
        Counter::DroppedStrict => "strict mode refuses plaintext from outside the mesh",
        _ => "the kernel says so",
    }
}
