//! An HTTP/2 peer made of single frames, to send what no library sends. Keeps no state of streams or windows, reads no
//! header block, and names nothing of the crate: the end-to-end tests include this file.

use std::cell::Cell;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// Flags: END_STREAM and ACK are the same bit of different frames.
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Error codes (RFC 9113, 7).
pub(crate) const FLOW_CONTROL_ERROR: u32 = 3;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;
pub(crate) const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        }
    }

    /// A CONNECT in one frame.
    pub(crate) fn connect(stream: u32, authority: &str) -> Self {
        Self::new(HEADERS, END_HEADERS, stream, &connect_block(authority))
    }

    /// The answer 200: `:status` of RFC 7541's static table.
    pub(crate) fn ok(stream: u32) -> Self {
        Self::new(HEADERS, END_HEADERS, stream, &[0x88])
    }

    pub(crate) fn reset(stream: u32, code: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    pub(crate) fn ping() -> Self {
        Self::new(PING, 0, 0, b"flooding")
    }

    pub(crate) fn settings() -> Self {
        Self::new(SETTINGS, 0, 0, &[])
    }

    /// The error code of RST_STREAM or GOAWAY.
    pub(crate) fn code(&self) -> Option<u32> {
        let at = match self.kind {
            RST_STREAM => 0,
            GOAWAY => 4,
            _ => return None,
        };
        Some(u32::from_be_bytes(self.payload.get(at..at + 4)?.try_into().ok()?))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a frame's length");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }
}

/// The header block of a CONNECT.
pub(crate) fn connect_block(authority: &str) -> Vec<u8> {
    [field(":method", "CONNECT"), field(":authority", authority)].concat()
}

/// A literal field without indexing and without Huffman (RFC 7541, 6.2.2): needs no table on either side.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        let mut rest = text.len();
        // An integer with a prefix of seven bits (RFC 7541, 5.1).
        if rest < 127 {
            block.push(rest as u8);
        } else {
            block.push(127);
            rest -= 127;
            while rest >= 128 {
                block.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            block.push(rest as u8);
        }
        block.extend_from_slice(text.as_bytes());
    }
    block
}

/// How a flood ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flooded {
    /// Frames handed to the kernel.
    pub(crate) sent: usize,
    /// The error code of the peer's GOAWAY.
    pub(crate) goaway: Option<u32>,
    /// The peer closed the connection.
    pub(crate) closed: bool,
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Frames<S> {
    io: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Greets as a client does, and allows the peer everything that is the default.
    pub(crate) async fn client(mut io: S) -> io::Result<Self> {
        io.write_all(&[PREFACE, &Frame::settings().bytes()].concat())
            .await?;
        io.flush().await?;
        Ok(Self { io })
    }

    /// Reads a client's greeting and answers with these settings, as identifier and value.
    pub(crate) async fn server(mut io: S, settings: &[(u16, u32)]) -> io::Result<Self> {
        let mut greeting = [0; PREFACE.len()];
        io.read_exact(&mut greeting).await?;
        if greeting != PREFACE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let mut frames = Self { io };
        frames.send(&Frame::new(SETTINGS, 0, 0, &payload)).await?;
        Ok(frames)
    }

    pub(crate) async fn send(&mut self, frame: &Frame) -> io::Result<()> {
        self.io.write_all(&frame.bytes()).await?;
        self.io.flush().await
    }

    /// The next frame, `None` when the peer has closed the connection in order.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Frame>> {
        read(&mut self.io).await
    }

    /// The next frame of this kind; all before it are dropped, and SETTINGS are acknowledged.
    pub(crate) async fn until(&mut self, kind: u8) -> io::Result<Frame> {
        self.until_some(|frame| (frame.kind == kind).then_some(frame))
            .await
    }

    /// As `until`, for any choice among the frames. A GOAWAY or the end of the connection that was not chosen is an
    /// error.
    pub(crate) async fn until_some<T>(
        &mut self,
        mut choose: impl FnMut(Frame) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            let frame = self.next().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                self.send(&Frame::new(SETTINGS, ACK, 0, &[])).await?;
            }
            let (kind, code) = (frame.kind, frame.code());
            if let Some(chosen) = choose(frame) {
                return Ok(chosen);
            }
            if kind == GOAWAY {
                return Err(io::Error::other(format!("GOAWAY with error code {code:?}")));
            }
        }
    }

    /// Sends what `next` makes until there is no more or the connection has ended. All that comes is read and dropped,
    /// so that it is never the peer's full window that holds a flood up.
    pub(crate) async fn flood(self, mut next: impl FnMut() -> Option<Frame>) -> Flooded {
        let (mut reader, mut writer) = tokio::io::split(self.io);
        let (sent, goaway) = (Cell::new(0), Cell::new(None));
        let writing = async {
            while let Some(frame) = next() {
                writer.write_all(&frame.bytes()).await?;
                sent.set(sent.get() + 1);
            }
            writer.flush().await
        };
        let mut reading = Box::pin(async {
            while let Ok(Some(frame)) = read(&mut reader).await {
                if frame.kind == GOAWAY {
                    goaway.set(frame.code());
                }
            }
        });
        let closed = tokio::select! {
            () = &mut reading => true,
            written = writing => {
                // A write that fails is the end, too; what the peer said before it may still be here.
                let failed: io::Result<()> = written;
                if failed.is_err() {
                    reading.await;
                }
                failed.is_err()
            },
        };
        Flooded {
            sent: sent.get(),
            goaway: goaway.get(),
            closed,
        }
    }
}

async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
    let mut head = [0; 9];
    match io.read_exact(&mut head).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    io.read_exact(&mut payload).await?;
    Ok(Some(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff,
        payload,
    }))
}
