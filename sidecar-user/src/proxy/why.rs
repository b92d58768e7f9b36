//! What would happen to a connection? The kernel's decision first, by its own maps, then this proxy's, by the same pure
//! functions that the walks call. Opens nothing and changes nothing.

mod text;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::affinity::Affinities;
use super::authorize;
use super::config::{self, Config};
use super::considered;
use super::kernel::Kernel;
use crate::datapath::{Action, Connect, Explain, Verdict};
use crate::identity::Svid;
use crate::model::{BalanceMode, OriginalDst, Own, Snapshot};
use crate::observe::{EndpointReport, Question, WhyReport};
use crate::policy::authorization::Denial;
use crate::policy::{Denied, Mode};
use crate::route::{Request, Route, Unknown, route};
use text::Telling;

/// Endpoints that an answer lists; a service may have thousands.
const SHOWN: usize = 16;

pub(super) struct Why {
    /// `None`: nothing is attached.
    kernel: Option<Explain>,
    policy_file: Option<PathBuf>,
    own: Own,
    mode: Mode,
    unknown: Unknown,
    own_ports: Vec<u16>,
    hbone_port: u16,
    world: watch::Receiver<Arc<Snapshot>>,
    svid: watch::Receiver<Option<Arc<Svid>>>,
    affinities: Arc<Affinities>,
}

impl Why {
    pub(super) fn new(
        config: &Config,
        kernel: Option<&Kernel>,
        world: watch::Receiver<Arc<Snapshot>>,
        svid: watch::Receiver<Option<Arc<Svid>>>,
        affinities: Arc<Affinities>,
    ) -> Self {
        Self {
            kernel: kernel.map(|kernel| kernel.session().explain()),
            policy_file: config.interception_policy.clone(),
            own: config::own(config),
            mode: config.mode,
            unknown: config.unknown,
            own_ports: config::own_ports(config),
            hbone_port: config.intercept.hbone_port,
            world,
            svid,
            affinities,
        }
    }

    /// An error is a sentence for whoever asked.
    pub(super) fn answer(&self, question: &Question) -> Result<WhyReport, String> {
        match (question.source, question.destination) {
            (Some(source), _) => self.inbound(question, source),
            (None, Some(ip)) => self.outbound(question, SocketAddr::new(ip, question.port)),
            (None, None) => Err("neither a source nor a destination is given".into()),
        }
    }

    fn outbound(&self, question: &Question, to: SocketAddr) -> Result<WhyReport, String> {
        let mut report = text::begin("outbound", question, to);
        let Some(kernel) = &self.kernel else {
            report.left_alone("nothing is attached to the kernel: the configuration has no `interception`");
            return Ok(report.0);
        };
        let verdict = kernel
            .outbound(question.protocol_number(), to)
            .map_err(|error| error.to_string())?;
        report.kernel(&verdict, self.policy_file.as_deref());
        match verdict.action {
            Action::Leave if self.is_own_port(to) => {
                report.left_alone("this is a port of the proxy itself");
            }
            Action::Leave => report.left_alone(""),
            Action::Refuse => report.refused("connect() fails with EPERM"),
            Action::Fail(errno) => {
                let errno = std::io::Error::from_raw_os_error(errno.cast_signed());
                report.refused(&format!("connect() fails at once, as without a proxy: {errno}"));
            }
            Action::Take(connect) => {
                report.connect(connect);
                self.routed(&mut report, to);
            }
        }
        Ok(report.0)
    }

    fn routed(&self, report: &mut Telling, to: SocketAddr) {
        let world = self.world.borrow().clone();
        if !world.knows(to.ip()) {
            report.0.reasons.push(text::UNASKED.into());
        }
        let (route, endpoints) = self.endpoints(&world, to);
        if let Some((service, all)) = world.service_at(to) {
            let kept = self.affinities.of(service, to.port(), Instant::now());
            let from = world.location_of(&self.own);
            let reasons = text::service(service, all, from, kept.as_deref());
            report.0.reasons.extend(reasons);
        } else if let Some((workload, _)) = world.workload_by_address(to.ip()) {
            report.0.reasons.push(format!(
                "it is the workload {}/{} of the registry",
                workload.namespace, workload.name
            ));
        }
        match route {
            Route::Mesh(_) | Route::Direct(_) => {
                let mesh = matches!(route, Route::Mesh(_));
                report.proxied(mesh, endpoints);
                if world.workload_by_address(to.ip()).is_none() && !world.is_vip(to.ip()) {
                    report
                        .0
                        .reasons
                        .push(text::unknown(self.unknown, to.port()).into());
                }
                if mesh && self.svid.borrow().is_none() {
                    report.refused("the proxy has no certificate yet, and goes to no mesh peer without");
                }
            }
            Route::Refuse(refusal) => {
                report.0.endpoints = endpoints;
                report.refused(text::refusal(refusal));
            }
        }
    }

    /// What the walk would do first, and everybody whom it considers.
    fn endpoints(&self, world: &Snapshot, to: SocketAddr) -> (Route, Vec<EndpointReport>) {
        let service = world.service_at(to);
        let kept = service.and_then(|(service, _)| self.affinities.of(service, to.port(), Instant::now()));
        let request = Request {
            dst: OriginalDst::new(to),
            unknown: self.unknown,
            tried: &[],
            from: world.location_of(&self.own),
            stays_with: kept.as_ref().map(|kept| kept.uid.as_str()),
        };
        let route = route(world, &request, &mut |_| 0);
        let mut endpoints = match (service, route.upstream()) {
            (Some((service, all)), _) if service.balancing.mode != BalanceMode::Passthrough => {
                considered::of_service(service, all, &request)
            }
            (_, Some(up)) => vec![match &up.target {
                Some(target) => considered::of_workload(&target.workload, &target.load, up.endpoint),
                None => EndpointReport {
                    address: up.endpoint.to_string(),
                    transport: "plain".into(),
                    chance: Some(1.0),
                    ..EndpointReport::default()
                },
            }],
            (_, None) => Vec::new(),
        };
        endpoints.truncate(SHOWN);
        (route, endpoints)
    }

    fn inbound(&self, question: &Question, source: IpAddr) -> Result<WhyReport, String> {
        let to = SocketAddr::new(self.dialled(question, source)?, question.port);
        let mut report = text::begin("inbound", question, to);
        if question.identity.is_some() {
            // It comes by the tunnel port, where the kernel decides nothing.
            self.admitted(&mut report, question, source, to);
            return Ok(report.0);
        }
        let Some(kernel) = &self.kernel else {
            report.left_alone("nothing is attached to the kernel: the configuration has no `interception`");
            return Ok(report.0);
        };
        let verdict = kernel
            .inbound(question.protocol_number(), source, to)
            .map_err(|error| error.to_string())?;
        report.kernel(&verdict, self.policy_file.as_deref());
        match verdict.action {
            Action::Leave if to.port() == self.hbone_port => report.left_alone(
                "this is where mesh peers dial: the proxy asks for their identity, and then its policies about the \
                 application's port; ask for that port, with the identity",
            ),
            Action::Leave if self.is_own_port(to) => {
                report.left_alone("this is a port of the proxy itself");
            }
            Action::Leave => report.left_alone(""),
            Action::Refuse | Action::Fail(_) => report.refused(""),
            Action::Take(_) => self.admitted(&mut report, question, source, to),
        }
        Ok(report.0)
    }

    /// At the inbound listeners: the mode is asked, and every policy that applies to this workload.
    fn admitted(&self, report: &mut Telling, question: &Question, from: IpAddr, to: SocketAddr) {
        let world = self.world.borrow().clone();
        let source = question.identity.as_ref();
        let judgement = authorize::judge(&world, &self.own, self.mode, source, from, to);
        if let Some(decision) = &judgement.rehearsed {
            report.0.reasons.push(text::rehearsed(decision));
        }
        match &judgement.verdict {
            Ok(permit) => report.admitted(source.is_some(), permit.by()),
            Err(denied) => {
                if let Denied::Policy(Denial::NotAllowed) = denied {
                    report.0.reasons.push(text::considered(&judgement.standing));
                }
                report.refused(&denied.to_string());
            }
        }
    }

    fn dialled(&self, question: &Question, source: IpAddr) -> Result<IpAddr, String> {
        let family = |ip: &&IpAddr| ip.is_ipv4() == source.is_ipv4();
        let listed = || {
            let addresses: Vec<String> = self.own.addresses.iter().map(IpAddr::to_string).collect();
            addresses.join(", ")
        };
        match question.destination {
            Some(ip) if self.own.addresses.contains(&ip) => Ok(ip),
            Some(ip) => Err(format!(
                "{ip} is no address of this pod, so nobody reaches it there; its addresses are {}",
                listed()
            )),
            None => self.own.addresses.iter().find(family).copied().ok_or_else(|| {
                format!(
                    "{source} cannot reach this pod, whose addresses are of the other family: {}",
                    listed()
                )
            }),
        }
    }

    fn is_own_port(&self, to: SocketAddr) -> bool {
        let here = to.ip().is_loopback() || self.own.addresses.contains(&to.ip());
        here && self.own_ports.contains(&to.port())
    }
}
