//! Facts about who the control path refuses, and what the rest of the pod's options sees of it.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::libc;
use sidecar_ebpf::abi::control::{Answer, LEVEL, Word, WordChange, operation};
use sidecar_ebpf::abi::{self, map};
use socket2::{Domain, Socket, Type};

use super::super::install::pins;
use super::super::{Control, Error, Secret, sys};
use super::confined::confined;
use super::control::{SECRET, ask, controlled, tcp};
use super::pod::in_pod;
use super::probe::{address, counter};

const ON: abi::Bypass = abi::Bypass::ON;

#[test]
fn nobody_marks_a_socket_without_the_secret_not_even_root() {
    in_pod(|pod| {
        let (datapath, _session) = controlled(pod);
        let marks = pod.map::<RawFd, abi::Bypass>(map::BYPASS).expect("the map");
        let mut nearly = SECRET;
        nearly[15] ^= 1;
        let mut other_half = SECRET;
        other_half[0] ^= 0x80;
        let refused: [(&str, &[u8]); 5] = [
            ("no buffer", &[]),
            ("a buffer that is too short for the secret", &SECRET[..15]),
            ("zeros", &[0; 16]),
            ("a secret of which the last bit is another", &nearly),
            ("a secret of which the first bit is another", &other_half),
        ];
        for (what, secret) in refused {
            let body = if secret.len() == 16 {
                bytemuck::bytes_of(&ON)
            } else {
                &[]
            };
            for confine in [false, true] {
                let socket = tcp();
                let before = counter(&datapath, "denied_control");
                let ask = || ask(&socket, operation::MARK, secret, body);
                let errno = if confine { confined(ask) } else { ask() };
                assert_eq!(errno, libc::EPERM, "{what}");
                assert_eq!(counter(&datapath, "denied_control"), before + 1, "{what}");
                assert_eq!(marks.get(&socket.as_raw_fd()).expect("readable"), None, "{what}");
            }
        }
        let refused = Control::open(Secret::new(nearly)).expect_err("refused");
        assert!(
            refused.to_string().contains("not the one of this pod"),
            "{refused}"
        );
    });
}

#[test]
fn where_no_secret_was_given_nobody_has_it() {
    in_pod(|pod| {
        let datapath = pod.attach(None);
        datapath.open_control(&Secret::new([0; 16])).expect("attached");
        for operation in 0..=operation::IS_PROBE {
            assert_eq!(ask(&tcp(), operation, &[0; 16], &[]), libc::EPERM, "{operation}");
        }
        assert_eq!(
            counter(&datapath, "denied_control"),
            u64::from(operation::IS_PROBE.cast_unsigned()) + 1
        );
    });
}

#[test]
fn a_body_of_another_length_and_an_operation_that_is_not_there_are_refused() {
    in_pod(|pod| {
        let (datapath, _session) = controlled(pod);
        let lengths = [
            (operation::PROVE, 0),
            (operation::MARK, 32),
            (operation::STAGE, 64),
            (operation::IS_HELD, 56),
            (operation::POLICY_SET, 152),
            (operation::POLICY_REMOVE, 24),
            (operation::POLICY_GET, 24),
            (operation::ROUTE_SET, 40),
            (operation::ROUTE_REMOVE, 20),
            (operation::ROUTE_GET, 20),
            (operation::WORD, 12),
            (operation::HAS_APP_SOCKET, 8),
            (operation::IS_PROBE, 20),
        ];
        let socket = tcp();
        let mut refused = 0;
        for (operation, length) in lengths {
            for other in [0, length - 1, length + 1, 4080, 5000, 70_000] {
                if other < 0 || other == length {
                    continue;
                }
                let body = vec![0; other as usize];
                let errno = confined(|| ask(&socket, operation, &SECRET, &body));
                assert_eq!(errno, libc::EINVAL, "operation {operation} with {other} bytes");
                refused += 1;
            }
            // Zeros are as good as anything.
            let body = vec![0; length as usize];
            let errno = confined(|| ask(&socket, operation, &SECRET, &body));
            assert_ne!(errno, libc::EINVAL, "operation {operation}");
            assert_ne!(errno, libc::EOPNOTSUPP, "operation {operation}");
        }
        for unknown in [i32::MIN, -1, 0, operation::ANSWER, 1000, i32::MAX] {
            let errno = confined(|| ask(&socket, unknown, &SECRET, &[]));
            assert_eq!(errno, libc::EOPNOTSUPP, "{unknown}");
            refused += 1;
        }
        let settings = pins::pinned_settings(&pod.config.pins).expect("settings");
        let unknown = WordChange {
            epoch: settings.epoch,
            word: bytemuck::cast(99_u32),
            value: 1,
        };
        let errno = confined(|| ask(&socket, operation::WORD, &SECRET, bytemuck::bytes_of(&unknown)));
        assert_eq!(errno, libc::EOPNOTSUPP);
        assert_eq!(counter(&datapath, "denied_control"), refused + 1);
    });
}

#[test]
fn another_proxys_words_are_not_written() {
    in_pod(|pod| {
        let (_datapath, _session) = controlled(pod);
        let settings = || pins::pinned_settings(&pod.config.pins).expect("settings");
        let before = settings();
        let socket = tcp();
        let words = [
            Word::NONE,
            Word::STRICT,
            Word::HOLD,
            Word::SHARDS,
            Word::POLICY_GENERATION,
            Word::ROUTES,
            Word::APP_PORTS,
        ];
        for word in words {
            let change = WordChange {
                epoch: before.epoch.wrapping_sub(1),
                word,
                value: 5,
            };
            let body = bytemuck::bytes_of(&change);
            let errno = confined(|| ask(&socket, operation::WORD, &SECRET, body));
            assert_eq!(errno, libc::ESTALE, "{word:?}");
        }
        assert_eq!(settings(), before);
    });
}

/// Whoever has the secret, as long as no program of the pod sees its socket.
#[test]
fn outside_of_the_cgroup_there_is_no_such_option() {
    in_pod(|pod| {
        let (datapath, _session) = controlled(pod);
        for to in ["10.99.0.2:80", "[fd99::2]:80"] {
            let outside = pod.outsider(address(to));
            for operation in [operation::PROVE, operation::MARK] {
                assert_eq!(
                    ask(&outside, operation, &SECRET, bytemuck::bytes_of(&ON)),
                    libc::ENOPROTOOPT,
                    "{to}"
                );
            }
            let marks = pod.map::<RawFd, abi::Bypass>(map::BYPASS).expect("the map");
            assert_eq!(marks.get(&outside.as_raw_fd()).expect("readable"), None);
        }
        assert_eq!(counter(&datapath, "denied_control"), 0, "nobody heard of it");
    });
}

#[test]
fn a_pod_without_the_control_path_says_so_to_who_wants_it() {
    in_pod(|pod| {
        let _datapath = pod.attach(None);
        let refused = Control::open(Secret::new(SECRET)).expect_err("nobody is there");
        assert!(
            refused.to_string().contains("or_setsockopt"),
            "the remedy: {refused}"
        );
    });
}

/// Only who has asked with the secret has an answer, on the socket that it has asked on.
#[test]
fn an_answer_is_shown_on_no_other_socket() {
    in_pod(|pod| {
        let (_datapath, session) = controlled(pod);
        let (asking, other) = (tcp(), tcp());
        let answer = |socket: &Socket, name| -> io::Result<Answer> {
            confined(|| sys::option(socket.as_fd(), LEVEL, name))
        };
        let errno = |answer: io::Result<Answer>| answer.expect_err("no answer").raw_os_error();
        assert_eq!(errno(answer(&asking, operation::ANSWER)), Some(libc::EOPNOTSUPP));

        let mut routes = session.routes().expect("routes");
        let path = crate::model::network::Path::Fails(113);
        let net = "203.0.113.0/24".parse().expect("a network");
        routes.set(&[(net, path)].into()).expect("written");
        let mut key = [0_u8; 20];
        key[..4].copy_from_slice(&128_u32.to_ne_bytes());
        key[14..].copy_from_slice(&[0xff, 0xff, 203, 0, 113, 9]);
        assert_eq!(confined(|| ask(&asking, operation::ROUTE_GET, &SECRET, &key)), 0);
        let found = answer(&asking, operation::ANSWER).expect("an answer");
        assert_eq!(bytemuck::bytes_of(&found)[16..20], 113_u32.to_ne_bytes());
        for name in [operation::ROUTE_GET, 0, 14] {
            assert_eq!(errno(answer(&asking, name)), Some(libc::EOPNOTSUPP), "{name}");
        }
        assert_eq!(errno(answer(&other, operation::ANSWER)), Some(libc::EOPNOTSUPP));
        key[14..].copy_from_slice(&[0xff, 0xff, 198, 51, 100, 1]);
        assert_eq!(
            confined(|| ask(&asking, operation::ROUTE_GET, &SECRET, &key)),
            libc::ENOENT
        );
    });
}

/// The kernel gives a program at most a page of an option, and asks it to say that it has not touched a longer one.
#[test]
fn other_options_of_any_length_do_what_they_do_without_the_program() {
    const IPT_SO_SET_REPLACE: i32 = 64;
    in_pod(|pod| {
        let options = [
            (libc::SOL_SOCKET, libc::SO_REUSEADDR),
            (libc::SOL_SOCKET, libc::SO_BINDTODEVICE),
            (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER),
            (libc::SOL_TCP, libc::TCP_CONGESTION),
            (libc::IPPROTO_IP, libc::IP_OPTIONS),
            (libc::IPPROTO_IP, IPT_SO_SET_REPLACE),
            (LEVEL + 1, operation::MARK),
            (LEVEL - 1, operation::MARK),
        ];
        let answers = || -> Vec<i32> {
            let mut answers = Vec::new();
            for (level, name) in options {
                for length in [0_usize, 1, 4, 15, 16, 17, 4095, 4096, 4097, 70_000] {
                    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("socket");
                    let value = vec![1_u8; length];
                    // SAFETY: the length is the buffer's.
                    let failed = unsafe {
                        libc::setsockopt(
                            socket.as_raw_fd(),
                            level,
                            name,
                            value.as_ptr().cast(),
                            length as libc::socklen_t,
                        )
                    };
                    answers.push(match failed {
                        0 => 0,
                        _ => io::Error::last_os_error().raw_os_error().expect("an errno"),
                    });
                }
            }
            answers
        };
        let datapath = pod.attach(None);
        let before = answers();
        datapath.open_control(&Secret::new(SECRET)).expect("attached");
        assert_eq!(answers(), before);
        assert_eq!(counter(&datapath, "denied_control"), 0);
        let socket = tcp();
        socket.set_reuse_address(true).expect("set");
        assert!(socket.reuse_address().expect("asked"), "the kernel has done it");
    });
}

#[test]
fn the_secret_is_in_no_message() {
    in_pod(|pod| {
        let (_datapath, _session) = controlled(pod);
        let control = Control::open(Secret::new(SECRET)).expect("taken");
        let refused = Control::open(Secret::new([0x41; 16])).expect_err("refused");
        for text in [
            format!("{control:?}"),
            format!("{:?}", Secret::new(SECRET)),
            format!("{refused:?} {refused}"),
        ] {
            for secret in ["0123", "30313233", "3031, ", "AAAA", "41414141", "1094795585"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        assert!(matches!(refused, Error::Control { .. }));
    });
}
