//! WHAT DOES THE API SERVER SAY? The only room that speaks to it: one client, and what changes among its objects, as plain types of
//! ours. Decides nothing about what it hears.

mod client;
mod names;
mod service_endpoints;
mod watch;

pub use client::{Client, Error};
pub use names::{
    ANNOTATION_STATUS, CONTAINER, DOMAIN, LABEL_INJECT, SYSTEM_NAMESPACE, TOKEN_AUDIENCE, TOKEN_PATH,
};
pub use service_endpoints::follow_endpoints;
pub use watch::{Change, follow};
