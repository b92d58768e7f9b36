//! Tunnels of a peer that goes to the limits: with a certificate that ends, and without mercy.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use harness::apps::{self, Keep};
use harness::mesh::identity;
use harness::{Mesh, wait};

use super::client::{Client, authority_of, by_hand, leaf_of};
use super::testing::frames::{self, Flooded, Frame, connect_block, field};

/// More of any frame than a peer that means well sends in a test's time.
const MANY: usize = 200_000;
/// A flood may not take what a thousand connections take.
const LITTLE: u64 = 16 << 20;

#[test]
fn a_tunnel_takes_no_new_stream_after_the_end_of_its_certificate_and_serves_those_it_has() -> Result<()> {
    let mut mesh = Mesh::start("leaf-ends")?;
    mesh.serve(apps::echo, 9000)?;
    let server = mesh.server().pod.ipv4();
    let to = SocketAddr::new(server.into(), 9000).to_string();
    let leaf = authority_of(&mesh.control)?.leaf(&identity("client"), |leaf| {
        leaf.not_after = (SystemTime::now() + Duration::from_secs(5)).into();
    });
    by_hand(&mesh, Client::with(&leaf), server.into(), async |mut peer| {
        peer.send(&Frame::connect(1, &to)).await?;
        assert_eq!(peer.until(frames::HEADERS).await?.payload[0], 0x88, "200");
        let told = peer.until(frames::GOAWAY).await?;
        assert_eq!(told.code(), Some(0), "{told:?}");
        peer.send(&Frame::new(frames::DATA, 0, 1, b"still here")).await?;
        let echo = loop {
            let frame = peer.next().await?.context("the tunnel has ended")?;
            match frame.kind {
                frames::DATA => break frame.payload,
                // Asks whether the GOAWAY has come.
                frames::PING if frame.flags & frames::ACK == 0 => {
                    let flags = frames::ACK;
                    peer.send(&Frame { flags, ..frame }).await?;
                }
                _ => {}
            }
        };
        assert_eq!(echo, b"still here");
        Ok(())
    })
}

/// Each flood ends its own tunnel; the tunnel of another peer, the memory and the descriptors of the proxy are as before.
#[test]
fn a_peer_that_floods_loses_its_tunnel_and_nobody_else_notices() -> Result<()> {
    let mut mesh = Mesh::start("floods")?;
    mesh.serve(apps::echo, 9000)?;
    let server = mesh.server().pod.ipv4();
    let to = SocketAddr::new(server.into(), 9000).to_string();
    let sidecar = &mesh.server().sidecar;
    let (kept, opened) = Keep::open(&mesh.client.pod, &[mesh.vip4(9000)], 5)?;
    assert_eq!(opened.get("ok"), Some(&5), "{opened:?}");
    let files = || sidecar.metric("process_open_fds", &[]);
    let (memory, before) = (sidecar.resident()?, files()?);

    let stream = |n: usize| u32::try_from(2 * n + 1).expect("a stream's number");
    let (open, more) = (connect_block(&to), field("x", "y"));
    let header_block = |n: usize| match n {
        0 => Frame::new(frames::HEADERS, 0, 1, &open),
        _ => Frame::new(frames::CONTINUATION, 0, 1, &more),
    };
    let resets = |n: usize| match n % 2 {
        0 => Frame::connect(stream(n / 2), &to),
        _ => Frame::reset(stream(n / 2), frames::CANCEL),
    };
    let empty_data = |n: usize| match n {
        0 => Frame::connect(1, &to),
        _ => Frame::new(frames::DATA, 0, 1, &[]),
    };
    let floods: [(&str, &(dyn Fn(usize) -> Frame + Sync)); 3] = [
        ("a header block without end", &header_block),
        ("requests that are reset at once", &resets),
        ("empty DATA", &empty_data),
    ];
    for (what, frame) in floods {
        let leaf = leaf_of(&mesh.control, &identity("client"))?;
        let mut n = 0;
        let flooded = by_hand(&mesh, Client::with(&leaf), server.into(), async |peer| {
            let next = || {
                n += 1;
                (n <= MANY).then(|| frame(n - 1))
            };
            Ok(peer.flood(next).await)
        })?;
        let Flooded { sent, goaway, closed } = flooded;
        assert!(closed && sent < MANY, "{what}: {flooded:?}");
        assert_eq!(goaway, Some(frames::ENHANCE_YOUR_CALM), "{what}");
        let grown = sidecar.resident()?.saturating_sub(memory);
        assert!(grown < LITTLE, "{what} took {grown} bytes");
    }
    wait::until("what the floods dialled is closed", wait::SOON, || {
        files().is_ok_and(|now| now <= before)
    })?;
    assert_eq!(kept.close()?, 5, "the other peer's connections");
    Ok(())
}
