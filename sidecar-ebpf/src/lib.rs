//! The contract between Outrigger's kernel programs and its user space: types, names, and the pure decisions.
//!
//! The programs themselves are the binary of this package (`main.rs`, BPF target only). Nothing here calls a
//! kernel helper or allocates, so that one source serves both sides and is tested on the host.
//!
//! One load of the programs may serve many pods. `or_pods`, `or_origin`, `or_bypass`, `or_answers`, `or_host`, `or_probes` and `or_rings` are one for all of them; of
//! the other maps each pod has its own, by the name in the table, which the programs find by the pod's number in an array of
//! maps ([`abi::map::BY_POD`]).
//!
//! | map | kind | written by | read by | an entry dies |
//! |---|---|---|---|---|
//! | `or_pods` | hash: cookie of a network namespace → number of its pod | the installer | all programs of cgroups, `or_approve` | when the pod is given up |
//! | `or_origin` | socket storage: [`abi::Origin`] | connect hooks, sockops on accept | getpeername, getsockname, getsockopt, sockops | with its socket |
//! | `or_pending` | hash: [`abi::Tuple`] → [`abi::Pending`] | sockops before the SYN, which does not leave without; then its stage: the filter, and `or_approve` for the proxy | the filter, sk_lookup, sockops on accept, the proxy | when accepted, when the client closes |
//! | `or_presented` | hash: [`abi::Tuple`] → [`abi::Origin`] | sockops before the proxy's SYN to the application, which does not leave without | sockops on accept | when claimed, when the proxy's socket closes |
//! | `or_bypass` | socket storage: [`abi::Bypass`] | the proxy, on its own sockets | connect hooks, sockops | with its socket |
//! | `or_watched` | socket storage: [`abi::Watched`] | sockops, for connections that are left alone | sockops | with its socket |
//! | `or_listeners` | sockmap: [`abi::Listener::slot`] | the proxy | sk_lookup | with the last close of the listener |
//! | `or_app_ports` | array of [`abi::AppPorts`], by port | sockops on listen and close | sk_lookup, the proxy | never, it counts |
//! | `or_app_sockets` | hash: cookie → [`abi::AppSocket`] | sockops on listen and close | sockops on close, the proxy | when the socket stops to listen |
//! | `or_inherited` | array of [`abi::Inherited`], by port | the proxy, for listeners that sockops did not see begin | sk_lookup | when the proxy finds no such listener any more |
//! | `or_policy` | LPM trie: [`abi::PolicyKey`] → [`abi::Policy`] | the proxy | connect hooks, sk_lookup | when its generation is over |
//! | `or_routes` | LPM trie: [`addr::Ip`] → [`abi::Path`] | the proxy, from the kernel's routes | connect hooks | with its route |
//! | `or_rings` | array of ring buffers of [`abi::Event`] and [`abi::LeftAlone`], by [`abi::ring_slot`] | the filter, sockops | the shard | when read |
//! | `or_settings` | array of one [`abi::Settings`] | the proxy | all programs | never |
//! | `or_counters` | array by [`abi::Counter::slot`], a row for each CPU | all programs | the proxy | never |
//! | `or_secret` | array of one [`abi::control::Secret`] | the installer | `or_setsockopt` | never |
//! | `or_answers` | socket storage: [`abi::control::Answer`] | `or_setsockopt` | getsockopt | with its socket |
//! | `or_host` | hash: an address of the host | the agent | sk_lookup | when the host has it no more |
//! | `or_probes` | hash: [`abi::ProbePort`] | the agent | sk_lookup | when the pod is given up |
//! | `AYA_LOGS` | ring buffer | all programs, when logging is on | the proxy | when read |
//!
//! What the proxy writes it writes by bpf(2), or through `or_setsockopt`, which is asked by [`abi::control`].

#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod addr;
pub mod verdict;
