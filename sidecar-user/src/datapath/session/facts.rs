//! Connections that never come to the proxy, as the programs tell of them when they are there and when they end.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use sidecar_ebpf::abi::{self, Counter, LeftAlone};
use sidecar_ebpf::addr::{Ip, Port};

use super::super::ip::user_ip;
use crate::model::{Cause, Direction, Flow, LegFacts, Legs, Outcome, Party, TcpFacts, Transport};

/// Of `net/tcp_states.h`: states in which nobody has finished in order.
const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;
const FIN_WAIT1: u8 = 4;
const CLOSE_WAIT: u8 = 8;

/// What has become of a connection that was left alone, or refused at connect().
#[derive(Debug)]
pub enum LeftAloneEvent {
    /// It is there. The number of the device that its socket is bound to, or 0.
    Opened(Flow, u32),
    Ended(Flow, Outcome),
}

/// A record of the ring, and the time now. `None`: it is none of these.
pub(super) fn left_alone(record: &[u8], now: SystemTime) -> Option<LeftAloneEvent> {
    let record: LeftAlone = bytemuck::try_pod_read_unaligned(record).ok()?;
    let own = address(record.tuple.source, record.tuple.source_port);
    let other = address(record.tuple.destination, record.tuple.destination_port);
    let direction = match record.direction {
        abi::Direction::OUTBOUND => Direction::Outbound,
        abi::Direction::INBOUND => Direction::Inbound,
        _ => return None,
    };
    let (client, destination) = match direction {
        Direction::Outbound => (own, other),
        Direction::Inbound => (other, own),
    };
    let opened = now
        .checked_sub(Duration::from_nanos(record.lasted))
        .unwrap_or(now);
    let mut flow = Flow::new(direction, client, opened);
    flow.original_dst = Some(destination);
    flow.transport = Transport::LeftAlone;
    if record.refused != 0 {
        return Some(LeftAloneEvent::Ended(flow, refused(record.refused()?)));
    }
    flow.chosen_dst = Some(destination);
    if direction == Direction::Outbound {
        flow.connect_time = (record.connect != 0).then(|| Duration::from_nanos(record.connect));
    }
    if record.open != 0 {
        return Some(LeftAloneEvent::Opened(flow, record.device));
    }
    let leg = Some(LegFacts {
        tcp: facts(&record),
        is_tunnel: false,
    });
    match direction {
        Direction::Outbound => {
            flow.bytes.add_sent(record.bytes_acked);
            flow.bytes.add_received(record.bytes_received);
            flow.legs = Some(Box::new(Legs {
                client: None,
                upstream: leg,
            }));
        }
        Direction::Inbound => {
            flow.bytes.add_sent(record.bytes_received);
            flow.bytes.add_received(record.bytes_acked);
            flow.legs = Some(Box::new(Legs {
                client: leg,
                upstream: None,
            }));
        }
    }
    let outcome = outcome(direction, record.state, record.segments_received);
    Some(LeftAloneEvent::Ended(flow, outcome))
}

/// The kernel does not show programs the error of a socket, so an end is known by the state that it was closed from.
fn outcome(direction: Direction, state: u8, segments_received: u32) -> Outcome {
    let other = match direction {
        Direction::Outbound => Party::Upstream,
        Direction::Inbound => Party::Client,
    };
    match state {
        SYN_SENT if segments_received > 0 => Outcome::new(other, Cause::ConnectionRefused),
        // Nothing came back: the kernel or the application has given up.
        SYN_SENT => Outcome::new(other, Cause::TimedOut),
        ESTABLISHED | FIN_WAIT1 | CLOSE_WAIT => Outcome::new(other, Cause::Reset),
        _ => Outcome::new(Party::Client, Cause::Eof),
    }
}

/// By the programs, at connect().
fn refused(why: Counter) -> Outcome {
    match why {
        // As without them.
        Counter::FailedRoute => Outcome::new(Party::Upstream, Cause::Unreachable),
        // The kernel had no memory to remember where it was to go.
        Counter::DeniedStorage => Outcome::new(Party::Us, Cause::LimitReached),
        _ => Outcome::new(Party::Policy, Cause::Denied),
    }
}

fn facts(record: &LeftAlone) -> TcpFacts {
    let time =
        |micros: u32| (micros != 0 && micros != u32::MAX).then(|| Duration::from_micros(micros.into()));
    let rate = u64::from(record.delivered) * u64::from(record.segment_size) * 1_000_000;
    TcpFacts {
        rtt: time(record.srtt / 8),
        min_rtt: time(record.min_rtt),
        segments_sent: record.segments_sent.into(),
        segments_received: record.segments_received.into(),
        segments_retransmitted: record.retransmitted.into(),
        bytes_sent: None,
        bytes_retransmitted: None,
        bytes_acked: record.bytes_acked,
        bytes_received: record.bytes_received,
        delivery_rate: rate.checked_div(record.interval.into()).unwrap_or_default(),
        congestion_window: record.congestion_window,
        segment_size: record.segment_size,
        unacked: record.unacked,
        queue: None,
    }
}

fn address(from: Ip, port: Port) -> SocketAddr {
    SocketAddr::new(user_ip(from), port.get())
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use sidecar_ebpf::abi::Tuple;

    use super::*;

    fn record(direction: abi::Direction, state: u8) -> LeftAlone {
        LeftAlone {
            tuple: Tuple {
                source: Ip::from_v4(u32::from_ne_bytes([10, 0, 0, 1])),
                destination: Ip::from_v4(u32::from_ne_bytes([10, 0, 0, 2])),
                source_port: Port::new(4000),
                destination_port: Port::new(80),
                ..Tuple::zeroed()
            },
            lasted: 3_000_000_000,
            connect: 5_000_000,
            bytes_acked: 102,
            bytes_received: 2001,
            srtt: 8 * 250,
            segment_size: 1000,
            delivered: 10,
            interval: 2000,
            segments_received: 4,
            direction,
            state,
            ..LeftAlone::zeroed()
        }
    }

    fn ended(record: &LeftAlone, now: SystemTime) -> (Flow, Outcome) {
        match left_alone(bytemuck::bytes_of(record), now) {
            Some(LeftAloneEvent::Ended(flow, outcome)) => (flow, outcome),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_that_is_there_has_no_figures_yet_and_a_connect_time_where_the_pod_has_dialled() {
        for (direction, took) in [
            (abi::Direction::OUTBOUND, Some(Duration::from_millis(5))),
            (abi::Direction::INBOUND, None),
        ] {
            let record = LeftAlone {
                open: 1,
                device: 7,
                ..record(direction, 0)
            };
            match left_alone(bytemuck::bytes_of(&record), SystemTime::now()) {
                Some(LeftAloneEvent::Opened(flow, 7)) => {
                    assert_eq!((flow.connect_time, flow.bytes.sent()), (took, 0));
                    assert!(flow.legs.is_none() && flow.chosen_dst.is_some());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_record_is_told_as_the_application_saw_its_connection() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let told = |direction| ended(&record(direction, 9), now);
        let (out, end) = told(abi::Direction::OUTBOUND);
        assert_eq!(end, Outcome::new(Party::Client, Cause::Eof));
        assert_eq!(out.opened, now - Duration::from_secs(3));
        assert_eq!(
            (out.client.to_string().as_str(), out.transport),
            ("10.0.0.1:4000", Transport::LeftAlone)
        );
        assert_eq!(out.chosen_dst.unwrap().to_string(), "10.0.0.2:80");
        assert_eq!((out.bytes.sent(), out.bytes.received()), (102, 2001));
        assert_eq!(out.connect_time, Some(Duration::from_millis(5)));
        let tcp = out.legs.unwrap().upstream.unwrap().tcp;
        assert_eq!((tcp.rtt, tcp.min_rtt), (Some(Duration::from_micros(250)), None));
        assert_eq!(tcp.delivery_rate, 5_000_000);

        let (inbound, _) = told(abi::Direction::INBOUND);
        assert_eq!(inbound.client.to_string(), "10.0.0.2:80");
        assert_eq!(inbound.chosen_dst.unwrap().to_string(), "10.0.0.1:4000");
        assert_eq!((inbound.bytes.sent(), inbound.bytes.received()), (2001, 102));
        assert_eq!(inbound.connect_time, None);
    }

    #[test]
    fn the_end_is_known_by_the_state_before_it_and_by_whether_anybody_answered() {
        use Direction::{Inbound, Outbound};
        let table = [
            (Outbound, SYN_SENT, 1, Party::Upstream, Cause::ConnectionRefused),
            (Outbound, SYN_SENT, 0, Party::Upstream, Cause::TimedOut),
            (Outbound, ESTABLISHED, 5, Party::Upstream, Cause::Reset),
            (Inbound, CLOSE_WAIT, 5, Party::Client, Cause::Reset),
            (Outbound, FIN_WAIT1, 5, Party::Upstream, Cause::Reset),
            (Outbound, 5, 5, Party::Client, Cause::Eof),
            (Inbound, 9, 5, Party::Client, Cause::Eof),
        ];
        for (direction, state, segments, by, cause) in table {
            assert_eq!(
                outcome(direction, state, segments),
                Outcome::new(by, cause),
                "{state} {segments}"
            );
        }
    }

    #[test]
    fn what_the_programs_refused_has_a_cause_and_no_figures() {
        let table = [
            (Counter::FailedRoute, Party::Upstream, Cause::Unreachable),
            (Counter::DeniedStorage, Party::Us, Cause::LimitReached),
            (Counter::DeniedDevice, Party::Policy, Cause::Denied),
            (Counter::DeniedSpecial, Party::Policy, Cause::Denied),
        ];
        for (why, by, cause) in table {
            let refused = LeftAlone {
                refused: why as u8 + 1,
                ..record(abi::Direction::OUTBOUND, 0)
            };
            let (flow, outcome) = ended(&refused, SystemTime::now());
            assert_eq!(outcome, Outcome::new(by, cause), "{why:?}");
            assert!(flow.legs.is_none() && flow.connect_time.is_none() && flow.chosen_dst.is_none());
        }
        let unknown = LeftAlone {
            refused: u8::MAX,
            ..record(abi::Direction::OUTBOUND, 0)
        };
        assert!(left_alone(bytemuck::bytes_of(&unknown), SystemTime::now()).is_none());
    }

    #[test]
    fn other_records_of_the_ring_are_none() {
        let now = SystemTime::now();
        assert!(left_alone(&[0; size_of::<abi::Event>()], now).is_none());
        assert!(
            left_alone(&[0; size_of::<LeftAlone>()], now).is_none(),
            "no direction"
        );
        assert_ne!(size_of::<abi::Event>(), size_of::<LeftAlone>());
    }
}
