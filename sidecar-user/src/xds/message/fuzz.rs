//! What has to hold of a message, whoever wrote it.

use prost::Message as _;

use super::{DeltaRequest, DeltaResponse, Node, decode, encode};
use crate::xds::{Audience, Client, Kind, Limits, ServerStream, Store};

/// A resource that is taken means the same when it is written and read again.
pub(crate) fn resource(kind: Kind, encoded: &[u8]) -> Result<String, String> {
    let resource = decode(kind, encoded).map_err(|error| error.to_string())?;
    let again = decode(kind, &encode(&resource)).expect("it was taken before");
    assert_eq!(again, resource);
    assert_eq!(again.key().kind, kind);
    Ok(again.key().name.escape_debug().to_string())
}

/// A request ends the stream or is answered, and the answers end.
pub(crate) fn request(encoded: &[u8]) -> Result<String, String> {
    let request = DeltaRequest::decode(encoded).map_err(|error| error.to_string())?;
    let mut store = Store::default();
    for kind in Kind::ALL {
        store.complete(kind);
    }
    let mut stream = ServerStream::new(Audience::Everybody, Limits { names: 100 });
    let asked = stream
        .request(request, &store)
        .map_err(|error| error.to_string())?;
    let responses = std::iter::from_fn(|| stream.next(&store)).take(1000).count();
    assert!(responses < 1000, "it goes on for ever");
    Ok(format!("{} names", asked.subscribed.len()))
}

/// Whatever a response says, the client holds only what it can use, and answers.
pub(crate) fn response(encoded: &[u8]) -> Result<String, String> {
    let response = DeltaResponse::decode(encoded).map_err(|error| error.to_string())?;
    let (mut client, mut store) = (Client::default(), Store::default());
    client.want("/10.0.0.1".into());
    client.begin(&Node::default(), &mut store);
    let received = client.response(response, &mut store).ok_or("of another type")?;
    assert_eq!(received.ack.error.is_some(), !received.refused.is_empty());
    Ok(received.refused.join("\n"))
}
