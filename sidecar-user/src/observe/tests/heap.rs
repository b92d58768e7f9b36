//! What flows cost, as the allocator sees it.

use allocation_counter::measure;

use super::*;

const MANY: usize = 1000;

/// With names of its own, which in a proxy belong to the registry and to certificates and are shared: the most it can be.
#[test]
fn an_open_flow_costs_well_under_a_kilobyte_and_a_closed_one_what_the_ring_keeps() {
    let observer = Observer::with_limits(Limits {
        closed_flows: MANY / 2,
        ..Limits::default()
    });
    // What is made once.
    drop(open(&observer, "web"));
    let mut flows = Vec::with_capacity(MANY);
    let opened = measure(|| flows.extend((0..MANY).map(|_| open(&observer, "web"))));
    let each = opened.bytes_current / MANY as i64;
    assert!((200..=768).contains(&each), "{each} bytes for each open flow");

    let closed = measure(|| {
        flows.drain(..).for_each(|flow| {
            flow.update(read);
            flow.close(EOF);
        })
    });
    let kept = (opened.bytes_current + closed.bytes_current) / (MANY / 2) as i64;
    // Of those some 400 are what the kernel said of both connections.
    assert!(kept <= 1152, "{kept} bytes for each closed flow that is kept");
}
