//! Which API server this is: its version, and what time it has.

use std::time::SystemTime;

use http::Request;
use http::header::DATE;
use kube::client::Body;
use serde::Deserialize;

use super::{Client, Error};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Such as `v1.36.4`.
    pub version: String,
    /// The second number of it; the first is 1.
    pub minor: u32,
    /// By its clock, in whole seconds. `None`: it does not say.
    pub time: Option<SystemTime>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    git_version: String,
}

pub async fn server(client: &Client) -> Result<Server, Error> {
    let asked = |source| Error::asked("say which version it is", source);
    let request = Request::get("/version").body(Body::empty());
    let request = request.map_err(|error| asked(kube::Error::HttpError(error)))?;
    let answer = client.inner().send(request).await.map_err(asked)?;
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let time = date.and_then(moment);
    let bytes = answer.into_body().collect_bytes().await.map_err(asked)?;
    let info: Info = serde_json::from_slice(&bytes).map_err(|error| asked(kube::Error::SerdeError(error)))?;
    Ok(Server {
        minor: minor(&info.git_version),
        version: info.git_version,
        time,
    })
}

/// 0 where it is no version of 1.
fn minor(version: &str) -> u32 {
    let rest = version.strip_prefix("v1.").unwrap_or_default();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().unwrap_or_default()
}

/// Of `Tue, 15 Nov 1994 08:12:31 GMT`, the only form that servers write (RFC 9110, 5.6.7).
fn moment(date: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = date.split_once(", ")?.1.split(' ');
    let (day, month, year, time) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_second_number_of_a_version_is_read_whatever_follows() {
        for (version, number) in [
            ("v1.36.4", 36),
            ("v1.33.1-eks-7d2f1", 33),
            ("v1.34+", 34),
            ("v2.1.0", 0),
            ("", 0),
        ] {
            assert_eq!(minor(version), number, "{version}");
        }
    }

    #[test]
    fn a_date_of_http_is_a_time() {
        let time = moment("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(time, SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777));
        assert_eq!(moment("yesterday"), None);
        assert_eq!(moment("Sun, 06 Foo 1994 08:49:37 GMT"), None);
    }
}
