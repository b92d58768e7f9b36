//! The kernel's records, as bytes. Asserts nothing: what becomes of an event is asserted where it is answered.

use super::hold;
use crate::model::HeldEvent;

pub(crate) fn held_event(record: &[u8]) -> Option<HeldEvent> {
    hold::held_event(record)
}
