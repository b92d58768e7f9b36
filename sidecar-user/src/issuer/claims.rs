//! What a token of a cluster says of itself, by which one that cannot be good is refused without asking anybody. It proves
//! nothing: anyone can write a token. RFC 7519.

use std::time::{Duration, SystemTime};

use serde::Deserialize;

/// A Kubernetes token is about 1 KiB.
const MAX_TOKEN: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub expires: SystemTime,
    pub audiences: Vec<String>,
}

#[derive(Deserialize)]
struct Payload {
    exp: u64,
    #[serde(default)]
    aud: Audiences,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

impl Default for Audiences {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Claims {
    /// `None`: it is no token of a cluster, or one without an end.
    pub fn of(token: &str) -> Option<Self> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let mut parts = token.split('.');
        let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let payload: Payload = serde_json::from_slice(&base64url(payload)?).ok()?;
        Some(Self {
            // Later than any clock goes is no end.
            expires: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(payload.exp))?,
            audiences: match payload.aud {
                Audiences::One(audience) => vec![audience],
                Audiences::Many(audiences) => audiences,
            },
        })
    }
}

/// RFC 4648 section 5, without padding.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.bytes() {
        let six = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_and_the_audiences_of_a_token_are_read() {
        // {"aud":["outrigger"],"exp":1800000000}
        let token = "e30.eyJhdWQiOlsib3V0cmlnZ2VyIl0sImV4cCI6MTgwMDAwMDAwMH0.c2ln";
        let claims = Claims::of(token).unwrap();
        assert_eq!(claims.audiences, ["outrigger"]);
        assert_eq!(
            claims.expires,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
        );
        // {"aud":"x","exp":1}
        assert_eq!(
            Claims::of("a.eyJhdWQiOiJ4IiwiZXhwIjoxfQ.b").unwrap().audiences,
            ["x"]
        );
    }

    #[test]
    fn what_is_no_token_says_nothing() {
        for token in [
            "",
            "ort_abc",
            "a.b",
            "a.b.c",
            "a.e30.c",
            "a.eyJhdWQiOiJ4IiwiZXhwIjoxfQ.b.c",
            "a.eyJhdWQiOiJ4IiwiZXhwIjoxfQ=.b",
            // {"exp":18446744073709551615}
            "a.eyJleHAiOjE4NDQ2NzQ0MDczNzA5NTUxNjE1fQ.b",
        ] {
            assert_eq!(Claims::of(token), None, "{token}");
        }
        assert_eq!(Claims::of(&format!("a.{}.b", "A".repeat(MAX_TOKEN))), None);
    }
}
