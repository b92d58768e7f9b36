//! Unmodified third-party programs, each started with a configuration of its own in the pod's directory. None of
//! them knows that it is intercepted.

pub mod attempts;
pub mod ceaseless;
pub mod clients;
pub mod hold;
pub mod script;
pub mod servers;

pub use attempts::{Attempt, Attempts, Outcome};
pub use ceaseless::{Ceaseless, Server};
pub use clients::{curl, iperf3, psql, redis_cli};
pub use hold::Stuck;
pub use script::{Background, Connects, Dialogue, Keep, Strangers, crowd, echo, neighbour, one_by_one, url};
pub use servers::{iperf3_server, nginx, nginx_with, postgres, redis, smtp};
