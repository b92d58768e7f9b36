//! On which ports the application listens: a number for each port there is, so that none can be crowded out.

use bytemuck::{Pod, Zeroable};

/// How many of the application's sockets listen on each of four ports, by the addresses of the pod that reach them: of each port
/// IPv4's in a low byte, IPv6's in the one above. The kernel rounds the values of an array up to 8 bytes. The programs change
/// theirs atomically, so that nobody else may write them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AppPorts(u64);

impl AppPorts {
    const PORTS: u16 = 4;
    /// Sockets of a port and family that are counted; those beyond are user space's to find.
    pub const MOST: u8 = u8::MAX;

    /// Which value of the array has the port.
    #[inline(always)]
    pub const fn place(port: u16) -> u32 {
        (port / Self::PORTS) as u32
    }

    /// In which the programs change it.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Whether some socket is reached on that port at an address of this family.
    #[inline(always)]
    pub const fn serves(self, port: u16, v4: bool) -> bool {
        self.count(port, v4) != 0
    }

    /// With one more socket on that port; `None`: there is no room for it.
    #[inline(always)]
    pub const fn with(self, port: u16, v4: bool, v6: bool) -> Option<Self> {
        let is_full =
            v4 & (self.count(port, true) == Self::MOST) | v6 & (self.count(port, false) == Self::MOST);
        match is_full {
            true => None,
            false => Some(Self(self.0 + Self::one(port, v4, v6))),
        }
    }

    /// One socket; subtracted from the word, one less.
    #[inline(always)]
    pub const fn one(port: u16, v4: bool, v6: bool) -> u64 {
        (v4 as u64 | (v6 as u64) << Self::FAMILY) << Self::shift(port)
    }

    #[inline(always)]
    const fn count(self, port: u16, v4: bool) -> u8 {
        let family = if v4 { 0 } else { Self::FAMILY };
        (self.0 >> Self::shift(port) >> family) as u8
    }

    const FAMILY: u16 = 8;

    #[inline(always)]
    const fn shift(port: u16) -> u16 {
        port % Self::PORTS * 2 * Self::FAMILY
    }
}

pub const APP_PORT_SLOTS: usize = (1 << 16) / AppPorts::PORTS as usize;

/// The same of sockets that the programs have not seen begin, as the proxy has found them: whether there is any, a bit for
/// each port and family.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Inherited(u64);

impl Inherited {
    pub const NONE: Self = Self(0);

    const PORTS: u16 = 32;

    /// Which value of the array has the port.
    #[inline(always)]
    pub const fn place(port: u16) -> u32 {
        (port / Self::PORTS) as u32
    }

    #[inline(always)]
    pub const fn serves(self, port: u16, v4: bool) -> bool {
        self.0 & Self::bit(port, v4) != 0
    }

    pub const fn with(self, port: u16, v4: bool) -> Self {
        Self(self.0 | Self::bit(port, v4))
    }

    #[inline(always)]
    const fn bit(port: u16, v4: bool) -> u64 {
        1 << ((port % Self::PORTS) * 2 + v4 as u16)
    }
}

pub const INHERITED_SLOTS: usize = (1 << 16) / Inherited::PORTS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_has_numbers_and_bits_of_its_own() {
        let (mut counts, mut bits) = (vec![0_u64; APP_PORT_SLOTS], vec![0_u64; INHERITED_SLOTS]);
        for port in 0..=u16::MAX {
            counts[AppPorts::place(port) as usize] += AppPorts::one(port, true, true);
            for v4 in [true, false] {
                let found = Inherited::NONE.with(port, v4);
                assert!(found.serves(port, v4) && !found.serves(port, !v4), "{port}");
                let before = &mut bits[Inherited::place(port) as usize];
                assert_eq!(*before & found.0, 0, "{port} shares a bit");
                *before |= found.0;
            }
        }
        assert!(counts.iter().all(|counts| *counts == 0x0101_0101_0101_0101));
        assert!(bits.iter().all(|bits| *bits == u64::MAX));
    }

    #[test]
    fn a_family_is_served_until_the_last_of_its_sockets_ends() {
        for port in 8080..8084 {
            let less = |ports: AppPorts, v4, v6| AppPorts(ports.0 - AppPorts::one(port, v4, v6));
            let all = [(true, true), (true, false), (true, true)];
            let all = all
                .into_iter()
                .try_fold(AppPorts(0), |ports, (v4, v6)| ports.with(port, v4, v6));
            let all = all.expect("there is room");
            assert!(all.serves(port, true) && all.serves(port, false));
            let without_dual = less(less(all, true, true), true, true);
            assert!(without_dual.serves(port, true) && !without_dual.serves(port, false));
            assert_eq!(less(without_dual, true, false), AppPorts(0));
        }
    }

    #[test]
    fn what_a_port_has_no_room_for_changes_no_number() {
        let mut full = AppPorts(0);
        for _ in 0..AppPorts::MOST {
            full = full.with(81, true, false).expect("there is room");
        }
        assert_eq!(full.with(81, true, false), None);
        assert_eq!(full.with(81, true, true), None);
        assert!(!full.serves(81, false) && !full.serves(80, true) && !full.serves(82, true));
        assert!(
            full.with(81, false, true)
                .is_some_and(|ports| ports.serves(81, false))
        );
        assert!(
            full.with(82, true, true)
                .is_some_and(|ports| ports.serves(82, true))
        );
    }
}
