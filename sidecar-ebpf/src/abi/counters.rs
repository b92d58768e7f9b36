//! What the programs count. New counters go to the end: the map has room for more than there are, so that a proxy that
//! knows one more keeps the pinned maps of the one before it, and each count keeps its meaning.

/// Slots of a row.
pub const COUNTER_SLOTS: usize = 64;
/// A CPU counts in a row of its own, so that none waits for another's cache line. Beyond so many CPUs some share one, which
/// their atomic additions allow: a connection is counted a few times in its life, and rows are memory of every pod. The
/// reader adds them up.
pub const COUNTER_ROWS: usize = 16;

const _: () = assert!(
    Counter::COUNT <= COUNTER_SLOTS,
    "the map needs more slots, and with them a new version in schema.rs"
);

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $variant:ident = $name:literal,)*) => {
        /// What the programs count: an index into the counters map.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Counter {
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $name),)*];
            pub const COUNT: usize = Self::ALL.len();

            /// Its place in `or_counters`, where this CPU counts.
            #[inline(always)]
            pub const fn slot(self, cpu: u32) -> u32 {
                cpu % COUNTER_ROWS as u32 * COUNTER_SLOTS as u32 + self as u32
            }
        }
    };
}

counters! {
    Redirected = "redirected",
    /// connect() of something that is not TCP.
    PassedProtocol = "passed_protocol",
    /// The proxy's own sockets.
    PassedBypass = "passed_bypass",
    /// Loopback and the pod's own addresses.
    PassedLocal = "passed_local",
    /// Sockets that depend on an interface: bound to a device, or going to an IPv6 link-local address.
    PassedDevice = "passed_device",
    /// The same in strict mode.
    DeniedDevice = "denied_device",
    /// Destinations that the kernel itself refuses: multicast, broadcast, port 0. Sockets bound to a loopback address,
    /// from which nobody else is reached.
    PassedSpecial = "passed_special",
    /// A socket bound to ::1 in strict mode: its SYN would leave the pod.
    DeniedSpecial = "denied_special",
    /// Left alone by policy.
    PassedPolicy = "passed_policy",
    /// Failed as it would have without the proxy: this host has no route.
    FailedRoute = "failed_route",
    /// The kernel gave no socket storage (optmem limit), so the destination would have been lost.
    DeniedStorage = "denied_storage",
    /// A hook ran before its settings were written, or with those of another version.
    DeniedSettings = "denied_settings",
    /// `or_pending` took no entry: connect() fails with EHOSTUNREACH, as nobody would know where it goes.
    PublishFailed = "publish_failed",
    /// Original destinations handed over to the proxy's socket.
    Claimed = "claimed",
    /// Packets to where connections are redirected that belong to none: attempts of others, which are refused, and what
    /// comes late of a connection that has ended.
    Unclaimed = "unclaimed",
    /// The accepted socket got no storage.
    ClaimFailed = "claim_failed",
    /// SYNs that wait for their upstream.
    Held = "held",
    /// SYNs that came again while the first one was held.
    HeldAgain = "held_again",
    /// Counted by earlier versions, which had a map for held SYNs alone: refused, because it was full.
    HeldFull = "held_full",
    /// News that a shard was not told, because its ring was full: SYNs are held, and told of when the client sends them
    /// again.
    RingFull = "ring_full",
    /// Held SYNs that were let in after their upstream had answered.
    Approved = "approved",
    /// Connections to the application that carry their true client's address.
    Presented = "presented",
    /// Connections to the application that could not carry it, for want of room: refused.
    PresentFailed = "present_failed",
    /// Connections from outside, given to the inbound listener.
    Steered = "steered",
    /// Connection attempts from inside the pod or to an open port, left alone.
    InboundPassed = "inbound_passed",
    /// Connection attempts from outside that policy leaves alone.
    InboundPassedPolicy = "inbound_passed_policy",
    /// Attempts at a port on which the application does not listen: refused as the kernel would.
    DroppedClosed = "dropped_closed",
    /// Attempts at the address that the proxy's own listeners are bound to.
    DroppedPort = "dropped_port",
    /// Plaintext from outside in strict mode.
    DroppedStrict = "dropped_strict",
    /// No listener in the slot, or it could not take the connection: fail closed.
    DroppedListener = "dropped_listener",
    DroppedSettings = "dropped_settings",
    /// Connections to the application that show nobody's address: an IPv6 client and a socket that speaks only IPv4.
    PresentedNobody = "presented_nobody",
    /// Probes of the proxy's own whose destination somebody had changed before they were seen here.
    DeniedProbe = "denied_probe",
    /// Requests of the control path without the pod's secret, or such as no proxy of this version makes.
    DeniedControl = "denied_control",
    /// News of connections that were left alone or refused that the proxy was not told: its rings were half full, or the
    /// kernel gave no socket storage.
    FactsLost = "facts_lost",
    /// Connection attempts of the host itself at a port where it asks whether a container is well.
    InboundPassedProbe = "inbound_passed_probe",
}
