//! The kernel's records, as bytes. Asserts nothing: what becomes of an attempt is asserted where it is answered.

use super::hold;
use crate::model::Attempt;

pub(crate) fn attempt(record: &[u8]) -> Option<Attempt> {
    hold::attempt(record)
}
