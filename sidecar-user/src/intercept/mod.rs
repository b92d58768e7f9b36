//! HOW DID IT GET HERE? Listeners and original destinations. Decides nothing about where a connection goes.

/// The ports that the kernel redirects to, and the port that mesh peers dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    pub outbound_port: u16,
    pub inbound_port: u16,
    pub hbone_port: u16,
}
