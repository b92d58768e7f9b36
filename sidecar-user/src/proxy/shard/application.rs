//! How a shard dials an application on behalf of a client, and what it learns of one that refuses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use super::context::Shard;
use crate::transport::tcp::TIME_WAIT;

impl Shard {
    /// Marks a socket that dials the application on behalf of a client, whose address the application is to see. It is to
    /// be connected to [`Self::door`].
    pub(in crate::proxy) fn present(
        &self,
        socket: BorrowedFd<'_>,
        client: SocketAddr,
        application: SocketAddr,
    ) -> io::Result<()> {
        self.descriptors.admit(socket)?;
        match &self.bypass {
            Some(bypass) => bypass.present(socket, client, application),
            // Nothing is attached, so nobody could show it.
            None => Ok(()),
        }
    }

    /// An application has refused a connection.
    pub(in crate::proxy) fn refused_by(&self, application: SocketAddr) {
        if let Some(bypass) = &self.bypass {
            bypass.refused_by(application);
        }
    }

    /// The address to dial an application by.
    pub(in crate::proxy) fn door(&self, application: SocketAddr) -> SocketAddr {
        match &self.bypass {
            Some(bypass) => bypass.door(application),
            None => application,
        }
    }

    /// The pod's own address has no port left towards an application. To find that out again each time would take longer
    /// than all the rest: the kernel looks at every port.
    pub(in crate::proxy) fn crowd(&self) {
        self.crowded.set(Some(Instant::now()));
    }

    pub(in crate::proxy) fn is_crowded(&self) -> bool {
        self.crowded
            .get()
            .is_some_and(|since| since.elapsed() < TIME_WAIT)
    }

    /// Another address to dial an application from, where nobody is shown it.
    pub(in crate::proxy) fn spare_source(&self, application: SocketAddr) -> Option<IpAddr> {
        self.bypass.as_ref()?.spare_source(application, fastrand::u16(..))
    }
}
