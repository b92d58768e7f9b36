//! From plain bytes to what a parser takes. A format is as simple as it can be, so that a mutation changes a value and not
//! the shape. Asserts nothing.

use http::{HeaderName, HeaderValue, Method, Request, Uri};

use super::Told;

pub(super) fn text(data: &[u8], run: fn(&str) -> Told) -> Told {
    run(std::str::from_utf8(data).map_err(|error| error.to_string())?)
}

pub(super) fn split_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}

/// Each behind its length in two bytes, the high one first; the last one may be short.
pub(super) fn frames(mut data: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let [high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (frame, behind) = rest.split_at(length);
        frames.push(frame);
        data = behind;
    }
    frames
}

/// What begins as PEM stays as it is; anything else is DER and becomes PEM, so that mutations reach the inside.
pub(super) fn pem(label: &str, data: &[u8]) -> String {
    if data.starts_with(b"-----") {
        return String::from_utf8_lossy(data).into_owned();
    }
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        base64(data)
    )
}

/// A method and an authority, then a header a line, as they stand in HTTP/1. What HTTP/2 would not let through is refused
/// here too.
pub(super) fn request(data: &[u8]) -> Result<Request<()>, String> {
    let (first, mut rest) = split_line(data);
    let mut words = first.splitn(2, |byte| *byte == b' ');
    let mut request = Request::new(());
    *request.method_mut() =
        Method::from_bytes(words.next().unwrap_or_default()).map_err(|error| error.to_string())?;
    *request.uri_mut() =
        Uri::try_from(words.next().unwrap_or_default()).map_err(|error| error.to_string())?;
    while !rest.is_empty() {
        let (line, behind) = split_line(rest);
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            request.headers_mut().append(name, value);
        }
        rest = behind;
    }
    Ok(request)
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0_u32, |word, (n, byte)| word | u32::from(*byte) << (16 - 8 * n));
        for digit in 0..4 {
            text.push(if digit <= chunk.len() {
                char::from(ALPHABET[(word >> (18 - 6 * digit) & 63) as usize])
            } else {
                '='
            });
        }
    }
    text
}
