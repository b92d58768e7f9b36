//! A bad registry file changes nothing and is reported.

use anyhow::Result;
use harness::{Mesh, apps, wait};

#[test]
fn a_bad_file_keeps_the_last_good_one_and_is_reported() -> Result<()> {
    let mut mesh = Mesh::start("bad-file")?;
    mesh.serve(apps::nginx, 8080)?;
    let works = |mesh: &Mesh| apps::curl(&mesh.client.pod, &apps::url(mesh.vip4(80))).and_then(|o| o.ok());
    works(&mesh)?;

    mesh.registry
        .write_raw("workloads: []\nservices:\n- {name: x, namespace: demo, hostnaem: x.demo}\n")?;
    let sidecar = &mesh.client.sidecar;
    wait::until("the mistake is reported with its field", wait::SOON, || {
        sidecar.log().contains("hostnaem")
    })?;
    assert!(sidecar.is_ready());
    assert_eq!(works(&mesh)?, "server-1\n");

    // The next good one is taken again.
    mesh.registry.update(|registry| registry.remove("server-1"))?;
    wait::until("the good file is in force", wait::SOON, || works(&mesh).is_err())
}
