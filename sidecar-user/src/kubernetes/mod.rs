//! WHAT DOES THE API SERVER SAY? The only room that speaks to it: one client, and what changes among its objects, as plain types of
//! ours. Decides nothing about what it hears.

mod client;
mod config_map;
#[cfg(test)]
pub(crate) mod fake;
mod names;
mod pod_state;
mod secret;
mod service_endpoints;
mod token_review;
mod watch;
mod webhook_configuration;

pub use client::{Client, Error};
pub use config_map::publish;
pub use names::{
    AGENT, ANNOTATION_STATUS, CONTAINER, CONTROL, DOMAIN, LABEL_INJECT, SYSTEM_NAMESPACE, TOKEN_AUDIENCE,
    TOKEN_PATH,
};
pub use pod_state::{PodState, pod_state};
pub use secret::{Secret, SecretChange, follow_secret, make_secret, read_secret};
pub use service_endpoints::follow_endpoints;
pub use token_review::{BoundPod, Reviewed, ServiceAccount, review_token};
pub use watch::{Change, follow};
pub use webhook_configuration::{Bundle, WebhookConfiguration, base64};
