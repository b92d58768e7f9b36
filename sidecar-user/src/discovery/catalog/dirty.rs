//! What has to be looked at again, because something that it is made of has changed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::kubernetes::ObjectName;

#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) services: BTreeSet<ObjectName>,
    pub(super) pods: BTreeSet<ObjectName>,
    /// Addresses of a service, which may be no pod's.
    pub(super) endpoints: BTreeSet<(ObjectName, IpAddr)>,
}
