//! The contract between Outrigger's kernel programs and its user space: types, names, and the pure decisions.
//!
//! The programs themselves are the binary of this package (`main.rs`, BPF target only). Nothing here calls a
//! kernel helper or allocates, so that one source serves both sides and is tested on the host.
//!
//! | map | kind | written by | read by | an entry dies |
//! |---|---|---|---|---|
//! | `or_origin` | socket storage: [`abi::Origin`] | connect hooks, sockops on accept | getpeername, getsockopt, sockops | with its socket |
//! | `or_handshake` | LRU hash: [`abi::Tuple`] → [`abi::Origin`] | sockops before the SYN | sockops on accept | when claimed, when the client closes, else by LRU |
//! | `or_bypass` | socket storage: [`abi::Bypass`] | the proxy, on its own sockets | connect hooks | with its socket |
//! | `or_listeners` | sockmap, one slot | the proxy | sk_lookup | with the last close of the listener |
//! | `or_settings` | array of one [`abi::Settings`] | the proxy | connect hooks, sockops, sk_lookup | never |
//! | `or_counters` | per-CPU array by [`abi::Counter`] | all programs | the proxy | never |
//! | `AYA_LOGS` | ring buffer | all programs, when logging is on | the proxy | when read |

#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod addr;
pub mod verdict;
