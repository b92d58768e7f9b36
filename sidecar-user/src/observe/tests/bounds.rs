//! What strangers, slow readers and floods of names cannot take from those who have a claim.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::endpoints::{ask, status};
use super::*;
use crate::observe::http::{PIECE, Pieces};
use crate::observe::listing::Listing;
use crate::observe::renderer::SHARED_FOR;

async fn connect_from(source: [u8; 4], address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(address).await.unwrap()
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await;
    !matches!(read.expect("it is neither answered nor closed"), Ok(1..))
}

#[tokio::test]
async fn whoever_asks_nothing_yields_to_a_probe() {
    let observer = Observer::new();
    let address = status(&observer);
    let mut silent = Vec::new();
    for n in 0..400 {
        let mut stream = connect_from([127, 0, 0, 9], address).await;
        if n % 2 == 0 {
            stream.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
        }
        silent.push(stream);
    }
    let probe = || ask(address, "GET", "/livez", "");
    assert_eq!(probe().await, (200, "ok\n".into()));
    for stream in &mut silent[..300] {
        assert!(is_closed(stream).await);
    }
    let evicted = |samples: &Samples, reason: &str| {
        let name = format!("outrigger_admission_evicted_{reason}_total");
        samples.sum(&name, &["door=\"status\""])
    };
    let samples = scrape(&observer);
    assert_eq!(
        (evicted(&samples, "by_quota"), evicted(&samples, "when_full")),
        (368.0, 0.0)
    );
    let waiting = samples.sum("outrigger_admission_waiting", &["door=\"status\""]);
    assert_eq!(waiting, 32.0);

    let mut crowd = Vec::new();
    for n in 0..400 {
        crowd.push(connect_from([127, 0, 1 + (n / 200) as u8, 1 + (n % 200) as u8], address).await);
    }
    assert_eq!(probe().await, (200, "ok\n".into()));
    assert!(is_closed(&mut crowd[0]).await);
    assert!(evicted(&scrape(&observer), "when_full") >= 400.0 - 256.0);
}

#[tokio::test]
async fn readers_that_do_not_read_keep_nobody_out() {
    let observer = Observer::new();
    // More than the buffers of two sockets hold.
    const LONG: usize = 16 << 20;
    let name: &'static str = Box::leak("n".repeat(LONG).into_boxed_str());
    let is_long = Arc::new(AtomicBool::new(true));
    let shown = is_long.clone();
    observer.kernel_counters(move || match shown.load(Relaxed) {
        true => vec![(name, 1)],
        false => Vec::new(),
    });
    let address = status(&observer);
    let mut readers = Vec::new();
    for n in 0..80 {
        let mut stream = connect_from([127, 0, 1 + (n / 8) as u8, 1], address).await;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).await.unwrap();
        readers.push(stream);
    }
    assert_eq!(ask(address, "GET", "/livez", "").await, (200, "ok\n".into()));
    let cut = async {
        let mut rest = Vec::new();
        readers[0].read_to_end(&mut rest).await.map(|_| rest.len())
    };
    let cut = tokio::time::timeout(PATIENCE, cut).await.expect("it is not cut");
    assert!(!matches!(cut, Ok(LONG..)), "the first of 80 still has its place");
    is_long.store(false, Relaxed);
    let evicted = scrape(&observer).sum(
        "outrigger_admission_evicted_when_full_total",
        &["door=\"status_answers\""],
    );
    assert!(evicted >= 80.0 - 64.0, "{evicted}");
}

#[tokio::test(start_paused = true)]
async fn one_rendering_serves_all_who_ask_within_a_second() {
    let observer = Observer::new();
    let made = Arc::new(AtomicU64::new(0));
    let count = made.clone();
    observer.kernel_counters(move || {
        count.fetch_add(1, Relaxed);
        Vec::new()
    });
    let ask = |max_age| {
        let renderer = observer.renderer();
        tokio::spawn(async move { renderer.current(Format::Prometheus, max_age).await.unwrap() })
    };
    let all: Vec<_> = (0..64).map(|_| ask(SHARED_FOR)).collect();
    for shared in all {
        assert!(shared.await.unwrap().text.upgrade().is_some());
    }
    assert_eq!(made.load(Relaxed), 1);
    tokio::time::advance(SHARED_FOR / 2).await;
    ask(SHARED_FOR).await.unwrap();
    assert_eq!(made.load(Relaxed), 1);
    tokio::time::advance(SHARED_FOR / 2).await;
    ask(SHARED_FOR).await.unwrap();
    assert_eq!(made.load(Relaxed), 2);
    ask(Duration::ZERO).await.unwrap();
    assert_eq!(made.load(Relaxed), 3, "the owner's is always new");
}

#[tokio::test]
async fn a_long_list_is_written_in_pieces() {
    let observer = Observer::new();
    let kept: Vec<_> = (0..3000).map(|_| open(&observer, "web")).collect();
    let mut listing = Listing::new(observer.clone(), filter::Query::default(), 2500);
    let mut whole = Vec::new();
    while let Some(piece) = poll_fn(|cx| listing.poll_piece(cx)).await {
        assert!(piece.len() <= PIECE, "{} bytes", piece.len());
        whole.extend_from_slice(&piece);
    }
    let list: FlowList = serde_json::from_slice(&whole).unwrap();
    assert_eq!((list.open.len(), list.truncated), (2500, true));
    let newest = list.open.last().map(|flow| flow.id);
    assert_eq!((list.open[0].id, newest), (501, Some(3000)));
    drop(kept);
}

#[tokio::test]
async fn a_flow_that_closes_while_the_list_is_written_is_in_one_of_the_two() {
    let observer = Observer::new();
    let mut kept: Vec<_> = (0..200).map(|_| open(&observer, "web")).collect();
    let mut listing = Listing::new(observer.clone(), filter::Query::default(), 1000);
    let mut whole = Vec::new();
    while let Some(piece) = poll_fn(|cx| listing.poll_piece(cx)).await {
        whole.extend_from_slice(&piece);
        // After the first piece all of them close: those that are written and those that are not.
        kept.clear();
    }
    let list: FlowList = serde_json::from_slice(&whole).unwrap();
    assert!(!list.open.is_empty() && !list.closed.is_empty());
    let ids: HashSet<u64> = list.open.iter().chain(&list.closed).map(|flow| flow.id).collect();
    assert_eq!((ids.len(), list.open.len() + list.closed.len()), (200, 200));
}

/// Closed before anything was proved.
fn stranger(observer: &Observer) {
    observer
        .shard(0)
        .open(flow(Direction::Inbound))
        .close(Outcome::new(Party::Client, Cause::TlsFailed));
}

#[test]
fn strangers_push_out_only_strangers() {
    let observer = Observer::with_limits(Limits {
        closed_flows: 3,
        ..Limits::default()
    });
    open(&observer, "web").close(EOF);
    let plain = observer.shard(0).open(flow(Direction::Inbound));
    plain.update(|flow| flow.connect_time = Some(Duration::ZERO));
    plain.close(EOF);
    for _ in 0..10 {
        stranger(&observer);
    }
    assert_eq!(closed(&observer, 10), [1, 2, 10, 11, 12]);
    assert_eq!(closed(&observer, 1), [1, 2, 12], "a limit counts for each kind");
}

#[tokio::test]
async fn strangers_cut_no_watcher_off() {
    let observer = Observer::with_limits(Limits {
        watch_queue: 8,
        ..Limits::default()
    });
    let mut following =
        following::Following::new(&observer, filter::Query::default(), 10, watch::Place::Anyone).unwrap();
    for _ in 0..100 {
        stranger(&observer);
    }
    open(&observer, "web").close(EOF);
    let lines = poll_fn(|cx| following.poll_piece(cx)).await.unwrap();
    let events: Vec<WatchEvent> = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let of_web = |event: &&WatchEvent| match event {
        WatchEvent::Opened { flow } | WatchEvent::Closed { flow } => flow.standing == "own",
        _ => false,
    };
    assert_eq!(events.iter().filter(of_web).count(), 2, "{events:?}");
    assert!(
        events.contains(&WatchEvent::Skipped { strangers: 196 }),
        "{events:?}"
    );
}

#[test]
fn names_that_nobody_uses_make_room_for_new_ones() {
    let observer = Observer::new();
    let lives = open(&observer, "lives");
    for n in 0..1100 {
        open(&observer, &format!("once-{n}")).close(EOF);
    }
    let start = Instant::now();
    let opened = |samples: &Samples, service: &str| {
        let label = format!("service=\"demo/{service}\"");
        samples.sum("outrigger_tcp_connections_opened_total", &[&label])
    };
    open(&observer, "new").close(EOF);
    let samples = scrape_at(&observer, start);
    assert_eq!((opened(&samples, "once-7"), opened(&samples, "new")), (1.0, 0.0));
    assert_eq!(samples.sum("outrigger_metrics_label_overflow_total", &[]), 102.0);

    scrape_at(&observer, start + Duration::from_secs(10 * 60));
    open(&observer, "new").close(EOF);
    let samples = scrape_at(&observer, start + Duration::from_secs(10 * 60));
    assert_eq!(opened(&samples, "new"), 1.0);
    assert_eq!(opened(&samples, "lives"), 1.0, "it is open");
    let sets = |samples: &Samples| {
        let opened = |series: &&String| series.starts_with("outrigger_tcp_connections_opened_total");
        samples.0.keys().filter(opened).count()
    };
    assert!(sets(&samples) <= 502, "{}", sets(&samples));
    lives.close(EOF);
}

#[test]
fn a_set_in_use_on_one_shard_loses_nothing_on_the_others() {
    let observer = Observer::with_limits(Limits {
        label_sets: 2,
        label_idle: Duration::ZERO,
        ..Limits::default()
    });
    let opened = |samples: &Samples| samples.sum("outrigger_tcp_connections_opened_total", &["demo/a"]);
    open(&observer, "a").close(EOF);
    let other = observer.shard(1).open(flow(Direction::Outbound));
    other.update(|flow| connected(flow, "a"));
    open(&observer, "b").close(EOF);
    let now = Instant::now();
    for second in 0..4 {
        assert_eq!(
            opened(&scrape_at(&observer, now + Duration::from_secs(second))),
            2.0
        );
    }
    other.close(EOF);
    scrape_at(&observer, now + Duration::from_secs(10));
    open(&observer, "c").close(EOF);
    let samples = scrape_at(&observer, now + Duration::from_secs(11));
    assert_eq!(
        samples.sum("outrigger_tcp_connections_opened_total", &["demo/c"]),
        1.0
    );
}
