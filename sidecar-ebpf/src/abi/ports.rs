//! On which ports the application listens: a number for each port there is, so that none can be crowded out.

use bytemuck::{Pod, Zeroable};

use super::APP_SOCKET_ENTRIES;

/// How many of the application's sockets listen on a port, by the addresses of the pod that reach them: IPv4's in the low
/// half, IPv6's in the high one. The programs change theirs by atomic additions, so that nobody else may write them.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AppPort(u32);

// A socket is counted only once it has found a place among those that are remembered.
const _: () = assert!(
    APP_SOCKET_ENTRIES <= u16::MAX as usize,
    "a half would overflow into the other"
);

impl AppPort {
    /// One more socket; subtracted, one less.
    #[inline(always)]
    pub const fn one(v4: bool, v6: bool) -> u32 {
        v4 as u32 | (v6 as u32) << 16
    }

    /// Whether some socket is reached at an address of this family.
    #[inline(always)]
    pub const fn serves(self, v4: bool) -> bool {
        if v4 { self.0 as u16 != 0 } else { self.0 >> 16 != 0 }
    }
}

/// The kernel rounds the values of an array up to 8 bytes, so two ports share one.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct AppPorts(pub [AppPort; AppPorts::PORTS]);

impl AppPorts {
    const PORTS: usize = 2;

    /// Which value of the array has the port, and its place there.
    #[inline(always)]
    pub const fn place(port: u16) -> (u32, usize) {
        (port as u32 / 2, port as usize % 2)
    }
}

pub const APP_PORT_SLOTS: usize = (1 << 16) / AppPorts::PORTS;

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
    fn every_port_has_a_number_and_bits_of_its_own() {
        let (mut counts, mut bits) = (vec![[0_u32; 2]; APP_PORT_SLOTS], vec![0_u64; INHERITED_SLOTS]);
        for port in 0..=u16::MAX {
            let (slot, at) = AppPorts::place(port);
            counts[slot as usize][at] += AppPort::one(true, true);
            for v4 in [true, false] {
                let found = Inherited::NONE.with(port, v4);
                assert!(found.serves(port, v4) && !found.serves(port, !v4), "{port}");
                let before = &mut bits[Inherited::place(port) as usize];
                assert_eq!(*before & found.0, 0, "{port} shares a bit");
                *before |= found.0;
            }
        }
        assert!(
            counts
                .iter()
                .flatten()
                .all(|count| *count == AppPort::one(true, true))
        );
        assert!(bits.iter().all(|bits| *bits == u64::MAX));
    }

    #[test]
    fn a_family_is_served_until_the_last_of_its_sockets_ends() {
        let dual = AppPort::one(true, true);
        let all = AppPort(2 * dual + AppPort::one(true, false));
        let without_dual = AppPort(all.0.wrapping_sub(2 * dual));
        assert!(all.serves(true) && all.serves(false));
        assert!(without_dual.serves(true) && !without_dual.serves(false));
        let none = AppPort(without_dual.0.wrapping_sub(AppPort::one(true, false)));
        assert!(!none.serves(true) && !none.serves(false));
        // As many as can be counted leave the other family alone.
        let most = AppPort(AppPort::one(true, false) * APP_SOCKET_ENTRIES as u32);
        assert!(most.serves(true) && !most.serves(false));
    }
}
