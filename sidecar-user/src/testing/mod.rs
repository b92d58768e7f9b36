//! What the tests of several rooms share: a certificate authority that signs anything, peers that break rules, full buffers. Not in
//! the product, and imports no room.

pub(crate) mod authority;
pub(crate) mod frames;
pub(crate) mod full;
pub(crate) mod stranger;
