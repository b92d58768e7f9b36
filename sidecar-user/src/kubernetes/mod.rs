//! WHAT DOES THE API SERVER SAY? The only room that speaks to it: one client, and what changes among its objects, as plain types of
//! ours. Decides nothing about what it hears.

mod client;
mod event;
mod names;
mod pod;
mod probe;
mod watch;

pub use client::{Client, Error};
pub use event::{Events, Told};
pub use names::{
    ANNOTATION_STATUS, CONTAINER, DOMAIN, LABEL_INJECT, SYSTEM_NAMESPACE, TOKEN_AUDIENCE, TOKEN_PATH,
};
pub use pod::{Pod, list_on_node, on_node};
pub use watch::{Change, follow};
