//! Peers that flood: their own tunnel ends, and nobody else's.

use super::*;

/// More of any frame than a peer that means well sends in a test's time.
const MANY: usize = 100_000;

/// Another peer's tunnel, before and after.
struct Bystander {
    pool: Pool,
    key: Key,
    svid: Arc<Svid>,
    near: Stream,
    far: Stream,
}

impl Bystander {
    async fn begin(gateway: &mut Gateway, ca: &Authority) -> Self {
        let (pool, svid, key) = (pool(), ca.svid(&id("client")), key(gateway.addr, &id("server")));
        let (connected, far) = streams(&pool, &key, &svid, gateway).await;
        Self {
            pool,
            key,
            svid,
            near: connected.stream,
            far,
        }
    }

    /// Its stream goes on, and so does its tunnel.
    async fn goes_on(mut self, gateway: &mut Gateway) {
        send(&mut self.near, "still here").await;
        assert_eq!(receive(&mut self.far).await.unwrap().unwrap(), "still here");
        let (again, _far) = streams(&self.pool, &self.key, &self.svid, gateway).await;
        assert!(again.handshake.is_none(), "its tunnel has ended");
    }
}

/// Floods until the tunnel ends; another peer's goes on.
async fn flood(first: &[Frame], frames: impl FnMut() -> Option<Frame>) {
    let ca = Authority::new("root");
    let mut gateway = gateway(&ca.svid(&id("server"))).await;
    let bystander = Bystander::begin(&mut gateway, &ca).await;
    let mut peer = by_hand(&gateway, &ca).await;
    for frame in first {
        peer.send(frame).await.unwrap();
    }
    // What it asks for is refused as the walk would, or dropped with its stream.
    let answering = async {
        while let Some(incoming) = gateway.incoming.recv().await {
            incoming.refuse(Refusal::ConnectionRefused);
        }
        unreachable!("the gateway has a sender");
    };
    let flooded = tokio::select! {
        flooded = peer.flood(frames) => flooded,
        () = answering => unreachable!(),
    };
    ended(&flooded);
    while gateway.incoming.try_recv().is_ok() {}
    bystander.goes_on(&mut gateway).await;
}

/// So many times what `make` gives for 0, 1, 2, …
fn times(count: usize, mut make: impl FnMut(usize) -> Frame) -> impl FnMut() -> Option<Frame> {
    let mut made = 0;
    move || {
        made += 1;
        (made <= count).then(|| make(made - 1))
    }
}

#[track_caller]
fn ended(flooded: &Flooded) {
    assert!(flooded.closed && flooded.sent < MANY, "{flooded:?}");
    assert_eq!(flooded.goaway, Some(frames::ENHANCE_YOUR_CALM), "{flooded:?}");
}

/// The odd numbers of a client's streams.
fn stream(n: usize) -> u32 {
    u32::try_from(2 * n + 1).unwrap()
}

#[tokio::test]
async fn a_header_block_without_end_ends_the_tunnel() {
    locally(async {
        let begin = Frame::new(frames::HEADERS, 0, 1, &frames::connect_block("10.0.0.2:80"));
        let more = Frame::new(frames::CONTINUATION, 0, 1, &frames::field("x", "y"));
        flood(&[begin], times(MANY, |_| more.clone())).await;
    })
    .await;
}

#[tokio::test]
async fn requests_that_are_reset_at_once_without_end_end_the_tunnel() {
    locally(async {
        let pairs = times(MANY, |n| match n % 2 {
            0 => Frame::connect(stream(n / 2), "10.0.0.2:80"),
            _ => Frame::reset(stream(n / 2), frames::CANCEL),
        });
        flood(&[], pairs).await;
    })
    .await;
}

/// The server is made to reset what it has accepted: by credit beyond what a window can hold.
#[tokio::test]
async fn requests_that_the_server_is_made_to_reset_without_end_end_the_tunnel() {
    locally(async {
        let pairs = times(MANY, |n| match n % 2 {
            0 => Frame::connect(stream(n / 2), "10.0.0.2:80"),
            _ => Frame::new(
                frames::WINDOW_UPDATE,
                0,
                stream(n / 2),
                &0x7fff_ffff_u32.to_be_bytes(),
            ),
        });
        flood(&[], pairs).await;
    })
    .await;
}

#[tokio::test]
async fn pings_without_end_end_the_tunnel() {
    locally(async {
        flood(&[], times(MANY, |_| Frame::ping())).await;
    })
    .await;
}

#[tokio::test]
async fn settings_without_end_end_the_tunnel() {
    locally(async {
        flood(&[], times(MANY, |_| Frame::settings())).await;
    })
    .await;
}

#[tokio::test]
async fn empty_data_without_end_ends_the_tunnel() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let bystander = Bystander::begin(&mut gateway, &ca).await;
        let mut peer = by_hand(&gateway, &ca).await;
        peer.send(&Frame::connect(1, "10.0.0.2:80")).await.unwrap();
        let mut stream = gateway.incoming.recv().await.unwrap().accept().unwrap();
        let empty = Frame::new(frames::DATA, 0, 1, &[]);
        let flooded = tokio::select! {
            flooded = peer.flood(times(MANY, |_| empty.clone())) => flooded,
            // Its reader reads all the time: nothing piles up.
            never = async { loop { let _ = receive(&mut stream).await; tokio::task::yield_now().await; } } => never,
        };
        ended(&flooded);
        bystander.goes_on(&mut gateway).await;
    })
    .await;
}

/// What one application does that gives up many connects at once, or is killed meanwhile: all arrives in one piece.
#[tokio::test]
async fn a_burst_of_connects_that_are_given_up_leaves_the_tunnel_as_it_was() {
    locally(async {
        let ca = Authority::new("root");
        let mut gateway = gateway(&ca.svid(&id("server"))).await;
        let mut peer = by_hand(&gateway, &ca).await;
        for n in 0..3000 {
            let connect = Frame::connect(stream(n), "10.0.0.2:80");
            // Nothing reads while this is written: it all waits in the socket.
            peer.send(&connect).await.unwrap();
            let reset = Frame::reset(stream(n), frames::CANCEL);
            peer.send(&reset).await.unwrap();
        }
        peer.send(&Frame::connect(stream(3000), "10.0.0.2:81"))
            .await
            .unwrap();
        let mut given_up = 0;
        let last = loop {
            let mut incoming = gateway.incoming.recv().await.unwrap();
            if incoming.authority().unwrap().port_u16() == Some(81) {
                break incoming;
            }
            incoming.gone().await;
            given_up += 1;
        };
        assert_eq!(given_up, 3000);
        let _stream = last.accept().unwrap();
        let answer = peer.until(frames::HEADERS).await.unwrap();
        assert_eq!(answer.stream, stream(3000));
    })
    .await;
}
