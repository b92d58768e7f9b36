//! A connection on its way to the proxy: published before its SYN leaves, held by the filter, approved by the proxy.
//!
//! An entry is written once, and after that only its [`Stage`] changes. That is one word, which every program changes by
//! compare-and-swap: of two that want the same connection one gets it, and none writes over another connection that has
//! the same two ends by now.

use bytemuck::{Pod, Zeroable};

use super::{Origin, Tuple};

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Pending {
    pub origin: Origin,
    pub stage: Stage,
}

/// How far a connection has come, in one word: a number that tells it from others with the same two ends, the shard that
/// was told of it, and the state.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Stage(u64);

#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct State(u8);

impl State {
    /// Accepted or ended: whoever has made it so removes the entry.
    pub const OVER: Self = Self(0);
    /// The SYN has not come to the filter.
    pub const PUBLISHED: Self = Self(1);
    /// The SYN waits, and the ring of its shard had no room to say so.
    pub const UNTOLD: Self = Self(2);
    /// The SYN waits, and its shard knows of it.
    pub const HELD: Self = Self(3);
    /// The SYN may pass when it comes again.
    pub const APPROVED: Self = Self(4);
}

impl Stage {
    pub const OVER: Self = Self::new(0, 0, State::OVER);

    /// The sequence number of the SYN is not known yet; `nonce` is random.
    #[inline(always)]
    pub const fn published(nonce: u32) -> Self {
        Self::new(nonce, 0, State::PUBLISHED)
    }

    #[inline(always)]
    pub const fn untold(sequence: u32, shard: u32) -> Self {
        Self::new(sequence, shard, State::UNTOLD)
    }

    #[inline(always)]
    pub const fn held(sequence: u32, shard: u32) -> Self {
        Self::new(sequence, shard, State::HELD)
    }

    #[inline(always)]
    pub const fn approved(sequence: u32, shard: u32) -> Self {
        Self::new(sequence, shard, State::APPROVED)
    }

    #[inline(always)]
    const fn new(number: u32, shard: u32, state: State) -> Self {
        Self((number as u64) << 32 | (shard as u64 & 0xffff) << 8 | state.0 as u64)
    }

    /// Of the SYN, in host order, where it has come.
    #[inline(always)]
    pub const fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The shard that was told or is to be, counted through all generations: its listener gets the SYN again.
    #[inline(always)]
    pub const fn shard(self) -> u32 {
        (self.0 >> 8) as u32 & 0xffff
    }

    #[inline(always)]
    pub const fn state(self) -> State {
        State(self.0 as u8)
    }

    /// Whether its SYN has come and waits.
    #[inline(always)]
    pub const fn is_waiting(self) -> bool {
        self.0 as u8 > State::PUBLISHED.0
    }

    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }
}

/// What the proxy asks `or_approve` for: this connection goes from the one stage to the other, or stays as it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct StageChange {
    pub tuple: Tuple,
    pub from: Stage,
    pub to: Stage,
}

impl StageChange {
    /// `or_approve` answers this where the connection is in the wanted stage now.
    pub const DONE: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::SHARD_SLOTS;

    #[test]
    fn a_stage_says_what_it_was_made_of() {
        let shard = SHARD_SLOTS as u32 - 1;
        for (stage, state, is_waiting) in [
            (Stage::untold(u32::MAX, shard), State::UNTOLD, true),
            (Stage::held(u32::MAX, shard), State::HELD, true),
            (Stage::approved(u32::MAX, shard), State::APPROVED, true),
        ] {
            assert_eq!(stage.sequence(), u32::MAX, "{stage:?}");
            assert_eq!(stage.shard(), shard, "{stage:?}");
            assert_eq!((stage.state(), stage.is_waiting()), (state, is_waiting));
        }
        let published = Stage::published(7);
        assert_eq!(
            (published.state(), published.is_waiting()),
            (State::PUBLISHED, false)
        );
        assert!(!Stage::OVER.is_waiting());
    }

    /// Or an approval of one could change another.
    #[test]
    fn stages_of_other_connections_and_shards_are_other_words() {
        let all = [
            Stage::OVER,
            Stage::published(1),
            Stage::published(2),
            Stage::untold(1, 0),
            Stage::held(1, 0),
            Stage::held(2, 0),
            Stage::held(1, 64),
            Stage::approved(1, 0),
            Stage::approved(1, 64),
        ];
        for (n, a) in all.iter().enumerate() {
            for b in &all[..n] {
                assert_ne!(a, b);
            }
        }
    }
}
