//! What has to be looked at again, because something that it is made of has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::kubernetes::ObjectName;
use crate::model::authorization::{Policy, PolicyName};

#[derive(Debug, Default)]
pub(super) struct Dirty {
    pub(super) services: BTreeSet<ObjectName>,
    pub(super) pods: BTreeSet<ObjectName>,
    /// As they are now; `None`: they are gone.
    pub(super) policies: BTreeMap<PolicyName, Option<Policy>>,
    /// Addresses of a service, which may be no pod's.
    pub(super) endpoints: BTreeSet<(ObjectName, IpAddr)>,
}
