//! MAY IT? Pure decisions about a connection whose facts are known. No clock, no input, no output.

pub mod authorization;

/// Whether plaintext from outside the mesh is let in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Plaintext is accepted and counted.
    #[default]
    Permissive,
    /// Only proven identities get in.
    Strict,
}
