//! The end-to-end tests, in reading order. They need root and the programs that `cargo xtask setup` installs; every
//! test builds its own network and its own mesh, so they run in parallel.

#[path = "e2e/fabric.rs"]
mod fabric; // the harness itself: pods, programs and captures without Outrigger

#[path = "e2e/check.rs"]
mod check; // what this host lacks

#[path = "e2e/attach.rs"]
mod attach; // a proxy that is not where it should be is not ready, and shows no application a wrong client

#[path = "e2e/closed.rs"]
mod closed; // a pod that is closed before its proxy starts

#[path = "e2e/agent.rs"]
mod agent; // the agent of a node, and sidecars without any privilege

#[path = "e2e/agent_end.rs"]
mod agent_end; // what stays of an agent that ends, and what does not

#[path = "e2e/agent_detach.rs"]
mod agent_detach; // a pod is taken out of interception, and intercepted again, while it runs

#[path = "e2e/agent_cluster.rs"]
mod agent_cluster; // the agent of a node of Kubernetes

#[path = "e2e/agent_capabilities.rs"]
mod agent_capabilities; // what the agent needs each capability for that the chart gives it

#[path = "e2e/agent_identity.rs"]
mod agent_identity; // certificates through the agent, and what happens while it or the authority is away

#[path = "e2e/agent_memory.rs"]
mod agent_memory; // what the agent remembers of its pods, and who is told

#[path = "e2e/privileges.rs"]
mod privileges; // what a sidecar may still do once it serves

#[path = "e2e/many.rs"]
mod many; // one agent with many pods

#[path = "e2e/existing.rs"]
mod existing; // connections that were there before the programs

#[path = "e2e/neighbours.rs"]
mod neighbours; // eBPF programs of other owners on the same cgroup

#[path = "e2e/reach.rs"]
mod reach; // who reaches whom, by which address, over which family

#[path = "e2e/near.rs"]
mod near; // which endpoints of a service a pod is given, by where it runs and whom it had before

#[path = "e2e/connect.rs"]
mod connect; // what connect() answers, and when

#[path = "e2e/readme.rs"]
mod readme; // the commands that README.md names

#[path = "e2e/programs.rs"]
mod programs; // unmodified programs and their protocols

#[path = "e2e/foreign.rs"]
mod foreign; // the same programs bare and intercepted: nothing that they show may differ

#[path = "e2e/secrecy.rs"]
mod secrecy; // what a capture sees

#[path = "e2e/identity.rs"]
mod identity; // wrong, unknown, expired or no identity

#[path = "e2e/authority.rs"]
mod authority; // strangers at the authority, tokens, and a new root while everything runs

#[path = "e2e/request.rs"]
mod request; // `ca request`: why an authority does not sign

#[path = "e2e/trust.rs"]
mod trust; // the roots change while connections are open

#[path = "e2e/modes.rs"]
mod modes; // strict, permissive, registry-only

#[path = "e2e/slots.rs"]
mod slots; // the proxy's listeners are its own

#[path = "e2e/policy.rs"]
mod policy; // what policies forbid stays out

#[path = "e2e/interception.rs"]
mod interception; // what is taken, what is left alone, and what `why` says about it

#[path = "e2e/hbone.rs"]
mod hbone; // the tunnel port, asked by hand

#[path = "e2e/addresses.rs"]
mod addresses; // whom each side sees

#[path = "e2e/routes.rs"]
mod routes; // where the host has no route, and which address it sends from

#[path = "e2e/outside.rs"]
mod outside; // a pod of another network namespace than that of those who attach and serve

#[path = "e2e/ports.rs"]
mod ports; // closed ports stay closed

#[path = "e2e/streams.rs"]
mod streams; // half-close, reset, unreachable upstream, bit-exact bytes

#[path = "e2e/truth.rs"]
mod truth; // what an application can observe is the same with and without Outrigger

#[path = "e2e/load.rs"]
mod load; // a crowd, renewal under traffic, endpoints that come and go

#[path = "e2e/limits.rs"]
mod limits; // no descriptors, no ports, no memory: new connections fail cleanly, established ones live on

#[path = "e2e/cost.rs"]
mod cost; // what a connection takes, in counts

#[path = "e2e/log.rs"]
mod log; // a log that nobody reads, and strangers who fill it

#[path = "e2e/pressure.rs"]
mod pressure; // neighbours that do not read, give up, or stand at the door: nobody else notices

#[path = "e2e/registry.rs"]
mod registry; // a bad registry file

#[path = "e2e/stop.rs"]
mod stop; // the end of a sidecar: whom it still serves, what it refuses, when it cuts

#[path = "e2e/failure.rs"]
mod failure; // killed replicas and killed proxies

#[path = "e2e/lease.rs"]
mod lease; // one proxy at a time owns a pod

#[path = "e2e/upgrade.rs"]
mod upgrade; // a second proxy takes a pod over from the first, and no connection notices

#[path = "e2e/handover.rs"]
mod handover; // a sidecar of an agent is taken over by a second one: the agent brings the two together, and nobody else can

#[path = "e2e/crash.rs"]
mod crash; // a proxy that is killed, alone or while another one takes over: nothing passes in plaintext, nothing is told falsely

#[path = "e2e/sight.rs"]
mod sight; // flows and metrics tell the truth

#[path = "e2e/itself.rs"]
mod itself; // what a proxy says of itself

#[path = "e2e/kernel.rs"]
mod kernel; // what the kernel knows of a connection, and whose fault it is that one is slow

#[path = "e2e/status.rs"]
mod status; // what is attached where, and what the command says when it is not any more

#[path = "e2e/supervised.rs"]
mod supervised; // what a service manager is told

#[path = "e2e/host.rs"]
mod host; // a host without Kubernetes: the units for systemd, and the page about them

#[path = "e2e/machine.rs"]
mod machine; // the same units, started by a real systemd

#[path = "e2e/admin.rs"]
mod admin; // who may ask a running proxy for what, and who changes it

#[path = "e2e/cleanup.rs"]
mod cleanup; // nothing is left behind

#[path = "e2e/lone.rs"]
mod lone; // a pod whose sidecar may never become ready

#[path = "e2e/expect.rs"]
mod expect; // what the tests above share
