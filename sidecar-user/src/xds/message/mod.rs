//! The messages of Istio workload discovery, with the fields that somebody reads. They stop here: what leaves is a
//! `Resource`, or the reason why it is none.

mod address;
mod authorization;
mod delta;
mod from_address;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod into_address;
mod parts;
mod rejected;

use bytes::Bytes;
use prost::Message as _;

use super::{Kind, Resource};
pub use delta::*;
pub use rejected::Rejected;

impl Kind {
    pub const ALL: [Self; 2] = [Self::Address, Self::Authorization];

    pub fn type_url(self) -> &'static str {
        match self {
            Self::Address => "type.googleapis.com/istio.workload.Address",
            Self::Authorization => "type.googleapis.com/istio.security.Authorization",
        }
    }

    pub fn of_type_url(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.type_url() == url)
    }
}

pub fn encode(resource: &Resource) -> Bytes {
    let encoded = match resource {
        Resource::Workload(workload) => address::Address::from(workload).encode_to_vec(),
        Resource::Service(service) => address::Address::from(service).encode_to_vec(),
        Resource::Policy(policy) => authorization::Authorization::from(policy).encode_to_vec(),
    };
    encoded.into()
}

pub fn decode(kind: Kind, encoded: &[u8]) -> Result<Resource, Rejected> {
    let malformed = |_| Rejected::Malformed;
    match kind {
        Kind::Address => {
            let address = address::Address::decode(encoded).map_err(malformed)?;
            address.try_into()
        }
        Kind::Authorization => {
            let policy = authorization::Authorization::decode(encoded).map_err(malformed)?;
            Ok(Resource::Policy(policy.try_into()?))
        }
    }
}

#[cfg(test)]
mod tests;
