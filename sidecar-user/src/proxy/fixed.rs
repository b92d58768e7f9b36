//! The listeners whose addresses others know, and only one proxy can have: made, or taken over from the proxy before, and
//! offered to the one after.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use anyhow::Context;

use super::Config;
use super::takeover::{Former, handed};
use crate::observe::{AdminSocket, SharedSocket};

/// Descriptors by name.
pub(super) type Named = Vec<(&'static str, OwnedFd)>;

pub(super) struct Fixed {
    pub(super) status: TcpListener,
    pub(super) admin: Option<TcpListener>,
    pub(super) admin_socket: Option<AdminSocket>,
    /// Where peers dial, if another proxy listens there already.
    pub(super) hbone: Option<TcpListener>,
}

impl Fixed {
    pub(super) fn open(config: &Config, mut former: Option<&mut Former>) -> anyhow::Result<Self> {
        let mut tcp = |name, at| former.as_mut().and_then(|former| former.tcp(name, at));
        let everywhere = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let status = everywhere(config.observe.status_port);
        let status = tcp(handed::STATUS, status).map_or_else(|| listen_status(status), Ok)?;
        let admin = match config.observe.admin {
            Some(at) => Some(tcp(handed::ADMIN, at).map_or_else(|| listen_admin(at), Ok)?),
            None => None,
        };
        let hbone = tcp(handed::HBONE, everywhere(config.intercept.hbone_port));
        let admin_socket = match &config.observe.admin_socket {
            Some(socket) => {
                let path = &socket.path;
                match former.and_then(|former| former.unix(handed::ADMIN_SOCKET, path)) {
                    Some(listener) => Some(AdminSocket::taken_over(listener, path)?),
                    None => AdminSocket::open(socket)?,
                }
            }
            None => None,
        };
        Ok(Self {
            status,
            admin,
            admin_socket,
            hbone,
        })
    }

    /// The same listeners for another proxy, by name, and how to tell that it has the admin socket.
    pub(super) fn share(&self, hbone: Option<&TcpListener>) -> io::Result<(Named, Option<SharedSocket>)> {
        let (socket, shared) = self
            .admin_socket
            .as_ref()
            .map(AdminSocket::share)
            .transpose()?
            .unzip();
        let listeners = [
            (handed::STATUS, Some(self.status.as_fd())),
            (handed::ADMIN, self.admin.as_ref().map(AsFd::as_fd)),
            (handed::ADMIN_SOCKET, socket.as_ref().map(AsFd::as_fd)),
            (handed::HBONE, hbone.map(AsFd::as_fd)),
        ];
        let there = listeners.into_iter().filter_map(|(name, fd)| Some((name, fd?)));
        let descriptors = there.map(|(name, fd)| Ok((name, fd.try_clone_to_owned()?)));
        Ok((descriptors.collect::<io::Result<_>>()?, shared))
    }
}

fn listen_status(at: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(at).with_context(|| {
        format!(
            "cannot listen on port {} for metrics and probes; set listen.status to a free one",
            at.port()
        )
    })
}

fn listen_admin(addr: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).with_context(|| {
        format!("cannot listen on {addr} for the admin endpoint; set listen.admin to a free one")
    })
}
