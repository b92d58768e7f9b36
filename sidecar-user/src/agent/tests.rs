//! The table of pods that have a sidecar, and the way of a request for a certificate.

mod meshed;
mod relay;
