//! How a flow travelled, and how it ended: who, and why.

use serde::Serialize;

/// How the bytes travel on the mesh side of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Plain,
    Hbone,
    /// Not at all: it was left alone, and its ends talk as without a proxy.
    #[serde(rename = "left_alone")]
    LeftAlone,
}

/// Who ended a flow, or made it fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Party {
    /// The application or proxy that opened the connection.
    Client,
    /// The endpoint that was dialled, or its proxy.
    Upstream,
    Policy,
    /// This proxy.
    Us,
}

/// Why a flow ended. `Eof` is the one good end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Both directions were finished in order.
    Eof,
    /// A reset, passed on to the other side.
    Reset,
    ConnectionRefused,
    Unreachable,
    TimedOut,
    /// The TLS handshake failed: certificate, protocol or alert.
    TlsFailed,
    /// The peer proved an identity, but not the expected one.
    WrongIdentity,
    /// This proxy holds no valid certificate.
    NoIdentity,
    Denied,
    NoEndpoint,
    /// Nobody has answered in time what the registry says about it.
    NoDiscovery,
    /// The registry does not know the destination and `registryOnly` is set.
    UnknownDestination,
    /// The redirect left no original destination behind.
    NoOriginalDestination,
    /// Somebody dialled one of the proxy's own ports.
    Loop,
    LimitReached,
    /// The half-closed connection was silent for too long.
    IdleTimeout,
    /// The peer broke HTTP/2 or HBONE.
    ProtocolError,
    /// The proxy shut down before the flow ended.
    Shutdown,
    /// Another system error; the log has it.
    Io,
    /// A bug of this proxy: the code that served the connection panicked; the log has it.
    Internal,
}

impl Cause {
    pub const ALL: [Self; 20] = [
        Self::Eof,
        Self::Reset,
        Self::ConnectionRefused,
        Self::Unreachable,
        Self::TimedOut,
        Self::TlsFailed,
        Self::WrongIdentity,
        Self::NoIdentity,
        Self::Denied,
        Self::NoEndpoint,
        Self::NoDiscovery,
        Self::UnknownDestination,
        Self::NoOriginalDestination,
        Self::Loop,
        Self::LimitReached,
        Self::IdleTimeout,
        Self::ProtocolError,
        Self::Shutdown,
        Self::Io,
        Self::Internal,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Outcome {
    pub by: Party,
    pub cause: Cause,
}

impl Outcome {
    pub const fn new(by: Party, cause: Cause) -> Self {
        Self { by, cause }
    }
}
