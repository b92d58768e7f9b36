//! The heads of HTTP/2 frames (RFC 9113, section 4.1) in a stream of bytes that arrives in pieces. Looks at no payload,
//! keeps none, and judges nothing: what is wrong with a frame is the HTTP/2 layer's to say.

/// What a client sends before its first frame (RFC 9113, section 3.4).
pub(super) const PREFACE: usize = 24;

const HEAD: usize = 9;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Reset,
    Settings,
    Ping,
    GoAway,
    WindowUpdate,
    /// PRIORITY, PUSH_PROMISE, CONTINUATION and what is not defined.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: Kind,
    /// Bit 0: the acknowledgement of SETTINGS and PING, the end of the stream in DATA and HEADERS.
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Of the payload, padding included: what flow control counts.
    pub(super) len: usize,
}

impl Frame {
    /// ACK of SETTINGS and PING, END_STREAM of DATA and HEADERS: all are the lowest bit.
    pub(super) fn has_first_flag(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// Where in the stream of bytes the next head begins.
#[derive(Debug)]
pub(super) struct Walk {
    /// Bytes of the preface or of a payload still to come.
    skip: usize,
    head: [u8; HEAD],
    /// Bytes of the head that are there.
    have: usize,
}

impl Walk {
    /// Begins after so many bytes that are no frame.
    pub(super) fn after(preface: usize) -> Self {
        Self {
            skip: preface,
            head: [0; HEAD],
            have: 0,
        }
    }

    /// Shows every frame whose head is complete with these bytes.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame)) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if bytes.is_empty() {
                return;
            }
            let taken = (HEAD - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have < HEAD {
                return;
            }
            self.have = 0;
            let frame = parse(&self.head);
            self.skip = frame.len;
            see(frame);
        }
    }
}

fn parse(head: &[u8; HEAD]) -> Frame {
    let [a, b, c, kind, flags, stream @ ..] = *head;
    Frame {
        kind: match kind {
            0 => Kind::Data,
            1 => Kind::Headers,
            3 => Kind::Reset,
            4 => Kind::Settings,
            6 => Kind::Ping,
            7 => Kind::GoAway,
            8 => Kind::WindowUpdate,
            _ => Kind::Other,
        },
        flags,
        // The first bit is reserved.
        stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
        len: u32::from_be_bytes([0, a, b, c]) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: u8, flags: u8, stream: u32, len: usize) -> Vec<u8> {
        let mut bytes = (len as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend((stream | 0x8000_0000).to_be_bytes());
        bytes.extend(vec![0xff; len]);
        bytes
    }

    #[test]
    fn frames_are_seen_however_the_bytes_are_cut() {
        let mut all = vec![0; PREFACE];
        let sent = [
            (4, 0, 0, 18),
            (1, 4, 1, 70),
            (0, 1, 1, 0),
            (6, 1, 0, 8),
            (0, 0, 3, 20_000),
            (3, 0, 3, 4),
            (99, 7, 5, 1),
        ];
        for (kind, flags, stream, len) in sent {
            all.extend(bytes(kind, flags, stream, len));
        }
        let walk = |cuts: &mut dyn FnMut() -> usize| {
            let mut walk = Walk::after(PREFACE);
            let mut seen = Vec::new();
            let mut rest = all.as_slice();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(cuts().clamp(1, rest.len()));
                walk.feed(piece, |frame| seen.push(frame));
                rest = tail;
            }
            seen
        };
        let whole = walk(&mut || usize::MAX);
        let seen: Vec<_> = whole.iter().map(|f| (f.flags, f.stream, f.len, f.kind)).collect();
        let kinds = [
            Kind::Settings,
            Kind::Headers,
            Kind::Data,
            Kind::Ping,
            Kind::Data,
            Kind::Reset,
            Kind::Other,
        ];
        let expected: Vec<_> = sent
            .iter()
            .zip(kinds)
            .map(|(&(_, flags, stream, len), kind)| (flags, stream, len, kind))
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(walk(&mut || 1), whole);
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            assert_eq!(walk(&mut || random.usize(1..40)), whole);
        }
    }
}
