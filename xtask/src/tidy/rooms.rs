//! The table of rooms: what each room of `sidecar-user/src` may import. The same table, for people, is in
//! `ARCHITECTURE.md`. How imports are found is `imports.rs`.

/// A room of `sidecar-user/src`: a folder, or a file of that name.
pub(super) struct Room {
    pub(super) name: &'static str,
    /// Rooms that it may import, its tests included, separated by spaces.
    rooms: &'static str,
    /// Crates beyond std that it may use outside its tests. Every room may derive its error with thiserror.
    crates: &'static str,
}

const fn room(name: &'static str, rooms: &'static str, crates: &'static str) -> Room {
    Room { name, rooms, crates }
}

pub(super) const ROOMS: &[Room] = &[
    // Nouns and pure decisions.
    room("model", "", "bytes ipnet serde"),
    room("policy", "model", ""),
    room("route", "model", ""),
    // tokio for the waker of whoever loses its place.
    room("admission", "", "tokio"),
    // nix for asking the allocator to give memory back.
    room("budget", "", "nix"),
    // The byte path. socket2 sets the options that tokio and nix have no name for, http holds the CONNECT request that
    // h2 sends, x509_parser reads the SPIFFE ID that webpki does not show, and tokio_util reads into spare capacity.
    room("intercept", "model", "nix socket2 tokio tracing"),
    room(
        "transport",
        "model budget identity pki",
        "bytes futures_util h2 http nix rustls socket2 tokio tokio_rustls tracing x509_parser",
    ),
    room("relay", "model budget", "bytes nix socket2 tokio tokio_util"),
    // The packets of netlink: what routes and listening sockets look like on its wire.
    room(
        "host",
        "model",
        "ipnet netlink_packet_core netlink_packet_route netlink_packet_sock_diag nix tokio",
    ),
    // Reading files that users write, for every room that has one. granit_parser tells where in it a field stands.
    room("document", "", "granit_parser notify tokio"),
    // What x509_parser shows of a certificate and webpki keeps to itself; sha2 for its fingerprint.
    room("pki", "", "sha2 x509_parser"),
    // Files of roots and tokens, for whoever proves itself to an authority. nix opens a user's file without waiting for the other end of
    // a pipe, zeroize for the token.
    room("credentials", "", "nix rustls tonic zeroize"),
    // What tonic wants of a service, written once for the rooms that serve one.
    room("grpc", "", "http tonic"),
    // Control work. humantime writes the times of certificates into messages, tower is how tonic takes our own connector,
    // which marks sockets.
    room(
        "identity",
        "model pki credentials",
        "http humantime hyper hyper_util prost rcgen rustls tokio tokio_rustls tonic tonic_prost tower tracing \
         x509_parser zeroize",
    ),
    // sha2 tells whether a file that was touched has changed, notify is the source of one of its errors.
    room(
        "discovery",
        "model document kubernetes xds",
        "futures_util ipnet notify serde sha2 tokio tracing",
    ),
    // aya-log speaks log, which the door passes on to tracing. The interception policy is read and followed here,
    // because only this room knows what of it the kernel can hold. socket2 and fastrand are for the connection by which a
    // proxy proves that the programs see its sockets, zeroize for the secret of the control path. aya_obj is what aya reads
    // the object with: programs that are loaded for each pod are linked once by it.
    room(
        "datapath",
        "model document",
        "aya aya_log aya_obj bytemuck fastrand ipnet log nix notify sidecar_ebpf socket2 tokio tracing \
         zeroize",
    ),
    // nix for the permissions and the lock of the state directory, serde_json for its list of tokens, pem writes what
    // pki_types only reads, tokio_io_timeout ends connections that fall silent.
    room(
        "issuer",
        "model pki admission grpc",
        "futures_util http humantime nix pem prost rcgen rustls serde serde_json sha2 tokio tokio_io_timeout tokio_rustls \
         tonic tonic_prost tower tracing x509_parser zeroize",
    ),
    // nix and socket2 for the process's own figures and the admin socket, tokio_io_timeout for readers that stop reading.
    room(
        "observe",
        "model admission",
        "bytes form_urlencoded http http_body_util humantime hyper hyper_util nix prometheus_client rustls serde serde_json socket2 \
         tokio tokio_io_timeout tokio_rustls tracing zeroize",
    ),
    // Connections from before the programs, for whoever attaches them.
    room("existing", "datapath host", "tracing"),
    // What a sidecar and the agent of its node say to each other.
    room("grant", "", "serde"),
    // The only user of the crates of the API server: what they know of its objects stops here.
    room(
        "kubernetes",
        "model",
        "futures_util http humantime k8s_openapi kube serde serde_json tokio tower tracing zeroize",
    ),
    // Pod in, pod out, and the policies that say the same in the API server's own language.
    room("inject", "model document kubernetes", "humantime serde_json sha2"),
    // Istio workload discovery as data, its server's and its client's state. Sans-io but for the two files that speak it.
    room(
        "xds",
        "model grpc",
        "bytes fastrand futures_util http hyper_util ipnet prost sha2 tokio tonic tonic_prost tower tracing",
    ),
    // What an agent carries between the sidecars of its node and the control process, and a sidecar's end of it. It reads no
    // message; bytes, http and http_body_util are what a request is made of that goes on as it came.
    room(
        "uplink",
        "model credentials grpc",
        "bytes futures_util http http_body_util hyper_util rustls tokio tonic tower tracing zeroize",
    ),
    // The webhook over HTTPS: hyper and tokio_rustls serve it, rcgen makes its certificates, x509_parser and pem read and write those of
    // the other replicas.
    room(
        "webhook",
        "admission pki inject kubernetes",
        "bytes http_body_util hyper hyper_util pem rcgen rustls tokio tokio_rustls tracing x509_parser",
    ),
    // Where pods are, for whoever installs them. nix for inotify and the kind of a file system.
    room("pods", "datapath", "nix tokio tracing"),
    // Roles assemble rooms. The plugin is a client of the admin endpoint: it reads its JSON and prints it; and a door to inject.
    room("proxy", ALL_ROOMS, ROLE_CRATES),
    room("control", ALL_ROOMS, ROLE_CRATES),
    room("agent", ALL_ROOMS, ROLE_CRATES),
    // nix for the width of a terminal, ratatui for the view on it, kubernetes for pods and agents and the way to them, transport for TLS with an agent, pki
    // for when roots end.
    room(
        "plugin",
        "model observe inject kubernetes credentials pki transport",
        "clap clap_complete humantime nix ratatui rustls serde serde_json tokio tokio_io_timeout tokio_rustls tokio_util zeroize",
    ),
    // Test support, which every room's tests may import and which imports none.
    room(TESTING, "", "rcgen rustls tokio"),
];

/// Sub-rooms, and those that they come to import by no way. A session is made of descriptors, so that it can serve where nobody
/// may install.
pub(super) const WALLS: [(&str, &str); 1] = [("datapath/session", "datapath/install")];

/// Compiled for tests only, so that nothing else can import it.
const TESTING: &str = "testing";

/// What a role may import: every room, and how a process lives and ends; no other role.
const ALL_ROOMS: &str = "model document admission budget policy route intercept transport relay pki identity discovery datapath host existing pods issuer observe grant kubernetes inject webhook xds \
                         uplink lifecycle";

/// rustls for the configurations that a shard holds, serde_json for `/config`, fastrand for the randomness that `route`
/// takes as an argument, ipnet for the routes that the host has and the mesh adds, slab for the table of connections,
/// each of which has its number in it.
const ROLE_CRATES: &str = "anyhow bytes fastrand futures_util humantime ipnet nix rustls serde_json sha2 slab socket2 tokio tracing zeroize";

/// The door: raw arguments → one validated configuration, and raw bytes → the parsers that fuzzers try. It may import
/// anything, and no room imports it.
pub(super) const DOOR: &[&str] = &["bin", "cli", "config", "fuzzing", "lib", "lifecycle", "main"];

impl Room {
    pub(super) fn may_import(&self, room: &str) -> bool {
        room == self.name || room == TESTING || self.rooms.split_whitespace().any(|allowed| allowed == room)
    }

    pub(super) fn may_use(&self, name: &str) -> bool {
        name == "thiserror" || self.crates.split_whitespace().any(|allowed| allowed == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rooms_import_each_other() {
        for a in ROOMS {
            for b in ROOMS.iter().filter(|b| b.name != a.name) {
                assert!(
                    !(a.may_import(b.name) && b.may_import(a.name)),
                    "{} and {}",
                    a.name,
                    b.name
                );
            }
        }
    }

    #[test]
    fn only_the_kernel_door_uses_aya() {
        let users: Vec<_> = ROOMS
            .iter()
            .filter(|room| room.may_use("aya"))
            .map(|room| room.name)
            .collect();
        assert_eq!(users, ["datapath"]);
    }

    #[test]
    fn what_a_room_may_import_exists() {
        for room in ROOMS {
            for imported in room.rooms.split_whitespace() {
                let known = DOOR.contains(&imported) || ROOMS.iter().any(|room| room.name == imported);
                assert!(known, "{} may import {imported}, which is no room", room.name);
            }
        }
    }
}
