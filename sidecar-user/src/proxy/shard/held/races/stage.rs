//! How far a connection has come on its way, as the kernel's table has it.

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stage {
    Published,
    /// For the proxy with this number, which was told or not.
    Waiting {
        sequence: u32,
        proxy: u32,
        is_told: bool,
    },
    Approved {
        sequence: u32,
        proxy: u32,
    },
}

impl Stage {
    pub(super) fn sequence(self) -> Option<u32> {
        match self {
            Self::Published => None,
            Self::Waiting { sequence, .. } | Self::Approved { sequence, .. } => Some(sequence),
        }
    }
}
