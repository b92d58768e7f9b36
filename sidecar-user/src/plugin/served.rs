//! A real admin endpoint with one open flow, for tests of what asks one.

use std::path::PathBuf;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::observe::{Admin, AdminSocket, Listeners, Observer, OpenFlow, serve_admin};

pub(super) struct Endpoint {
    path: PathBuf,
    open: OpenFlow,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl Endpoint {
    pub(super) fn with_a_flow(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("outrigger-{}-{name}.sock", std::process::id()));
        let socket = AdminSocket::bind(&path).unwrap();
        let observer = Observer::new();
        let open = observer.shard(0).open(super::table::tests::flow());
        let admin = Admin::of_flows(&observer);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let listeners = Listeners {
                socket: Some(socket),
                ..Listeners::default()
            };
            runtime.block_on(async {
                tokio::select! {
                    served = serve_admin(listeners, admin) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        Self {
            path,
            open,
            stop,
            server,
        }
    }

    pub(super) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Nobody answers any more at the path that is returned.
    pub(super) fn end(self) -> PathBuf {
        drop((self.open, self.stop));
        self.server.join().unwrap();
        self.path
    }
}
