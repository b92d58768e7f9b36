//! Why a message is no resource.

/// Why one resource is not taken. The rest of its push is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("it is no message of its type")]
    Malformed,
    #[error("`{field}`: {what}")]
    Field { field: &'static str, what: String },
}

impl Rejected {
    pub(super) fn field(field: &'static str, what: impl Into<String>) -> Self {
        Self::Field {
            field,
            what: what.into(),
        }
    }
}
