//! What the kernel knows of one TCP socket: `TCP_INFO`, read by offset, because C libraries lag behind `linux/tcp.h`.

use std::os::fd::RawFd;
use std::time::Duration;

use super::sys;
use crate::model::{Queue, TcpFacts};

/// Up to `tcpi_bytes_retrans`, which Linux 4.19 has. Later fields are not read.
pub(super) const LEN: usize = 216;

/// One system call. `None`: that is no TCP socket, or none any more.
pub fn tcp_facts(socket: RawFd) -> Option<TcpFacts> {
    let mut info = [0; LEN];
    let len = sys::tcp_info(socket, &mut info).ok()?;
    (len == LEN).then(|| parse(&info))
}

pub(super) fn parse(info: &[u8; LEN]) -> TcpFacts {
    let word = |at: usize| {
        let bytes = info.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
    };
    let long = |at: usize| {
        let bytes = info.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    let micros = |n: u32| (n != 0 && n != u32::MAX).then(|| Duration::from_micros(n.into()));
    TcpFacts {
        rtt: micros(word(68)),
        min_rtt: micros(word(148)),
        segments_sent: word(136).into(),
        segments_received: word(140).into(),
        segments_retransmitted: word(100).into(),
        bytes_sent: Some(long(200)),
        bytes_retransmitted: Some(long(208)),
        bytes_acked: long(120),
        bytes_received: long(128),
        delivery_rate: long(160),
        congestion_window: word(80),
        segment_size: word(16),
        unacked: word(24),
        queue: Some(Queue {
            unsent: word(144),
            busy: Duration::from_micros(long(168)),
            window_limited: Duration::from_micros(long(176)),
            buffer_limited: Duration::from_micros(long(184)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_figures_of_a_connection_are_those_of_what_it_carried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 5000]).unwrap();
        let mut bytes = [0; 5000];
        server.read_exact(&mut bytes).unwrap();
        server.write_all(&bytes[..300]).unwrap();
        client.read_exact(&mut bytes[..300]).unwrap();
        let [here, there] = [&client, &server].map(|end| tcp_facts(end.as_raw_fd()).unwrap());
        assert_eq!((here.bytes_sent, here.bytes_received), (Some(5000), 300));
        assert_eq!((there.bytes_sent, there.bytes_received), (Some(300), 5000));
        assert_eq!(
            (here.bytes_retransmitted, here.segments_retransmitted),
            (Some(0), 0)
        );
        assert_eq!(here.bytes_acked, 5001, "and the SYN");
        let (rtt, min) = (here.rtt.unwrap(), here.min_rtt.unwrap());
        assert!(min <= rtt && rtt < Duration::from_secs(10), "{min:?} {rtt:?}");
        assert!(here.segments_sent >= 2 && here.segments_received >= 2, "{here:?}");
        assert!(here.congestion_window > 0 && here.delivery_rate > 0, "{here:?}");
        assert!((500..=65_536).contains(&here.segment_size), "{here:?}");
    }

    #[test]
    fn a_socket_of_another_protocol_and_none_at_all_have_no_figures() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(tcp_facts(udp.as_raw_fd()), None);
        assert_eq!(tcp_facts(-1), None);
    }

    /// The figure of `docs/performance.md`, the best of many rounds: `-- host::tcp_info --ignored --nocapture`.
    #[test]
    #[ignore = "it measures, and has nothing to assert"]
    fn what_asking_takes() {
        const ROUNDS: u32 = 200;
        const EACH: u32 = 1000;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let round = |_| {
            let start = std::time::Instant::now();
            for _ in 0..EACH {
                assert!(tcp_facts(client.as_raw_fd()).is_some());
            }
            start.elapsed() / EACH
        };
        println!("{:?} for each TCP_INFO", (0..ROUNDS).map(round).min().unwrap());
    }
}
