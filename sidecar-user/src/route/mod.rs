//! WHERE TO? Original destination and snapshot in, upstream out. Pure: randomness is an argument.

/// What happens to destinations that the registry does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unknown {
    /// They are dialled as the application asked, in plain TCP.
    #[default]
    PassThrough,
    /// They are refused.
    Refuse,
}
