//! A person's connection to a cluster: the API server, what they show there, and by which roots an agent is believed. Drives the sockets of
//! both on a thread of its own, so that verbs read as from a file.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::runtime::Handle;
use zeroize::Zeroizing;

use crate::credentials;
use crate::kubernetes::{
    self, AGENT, Client, Person, ROOTS, ROOTS_KEY, SYSTEM_NAMESPACE, TOKEN_AUDIENCE, VIEWER,
};
use crate::plugin::error::Error;
use crate::transport::tls;

/// Cheap to clone.
#[derive(Clone)]
pub(in crate::plugin) struct Session(Arc<Open>);

struct Open {
    runtime: Handle,
    person: Person,
    proof: OnceLock<Proof>,
}

/// What an agent is shown, and has to show.
pub(super) struct Proof {
    pub(super) token: Zeroizing<String>,
    pub(super) tls: Arc<ClientConfig>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.0.person.server).finish()
    }
}

/// For one answer of the API server.
const PATIENCE: Duration = Duration::from_secs(15);

impl Session {
    pub(super) fn open(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| Error::Runtime { source })?;
        let handle = runtime.handle().clone();
        // It ends with the process.
        thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        let person = handle.block_on(kubernetes::person(kubeconfig, context));
        Ok(Self(Arc::new(Open {
            runtime: handle,
            person: person.map_err(|source| Error::Kubeconfig { source })?,
            proof: OnceLock::new(),
        })))
    }

    pub(in crate::plugin) fn client(&self) -> &Client {
        &self.0.person.client
    }

    /// Of the context.
    pub(in crate::plugin) fn namespace(&self) -> &str {
        &self.0.person.namespace
    }

    /// Of the API server.
    pub(in crate::plugin) fn server(&self) -> &str {
        &self.0.person.server
    }

    /// Whether the kubeconfig has a certificate and no token, so that agents are shown one of `outrigger-viewer`.
    pub(in crate::plugin) fn has_no_token(&self) -> bool {
        self.0.person.token.is_none()
    }

    /// Waits for an answer of the API server.
    pub(in crate::plugin) fn ask<T>(
        &self,
        asked: impl Future<Output = Result<T, kubernetes::Error>>,
    ) -> Result<T, Error> {
        match self.wait(async { tokio::time::timeout(PATIENCE, asked).await }) {
            Ok(answer) => answer.map_err(|source| self.unanswered(source)),
            Err(_) => Err(Error::ApiServerSilent {
                server: self.0.person.server.clone(),
                patience: PATIENCE,
            }),
        }
    }

    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.runtime.block_on(future)
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.0.runtime
    }

    /// What agents are shown, asked for once.
    pub(super) fn proof(&self) -> Result<&Proof, Error> {
        if let Some(proof) = self.0.proof.get() {
            return Ok(proof);
        }
        let proof = self.prove()?;
        Ok(self.0.proof.get_or_init(|| proof))
    }

    fn prove(&self) -> Result<Proof, Error> {
        let roots = self.ask(kubernetes::find_config_map(
            self.client(),
            SYSTEM_NAMESPACE,
            ROOTS,
        ))?;
        let roots = roots.value(ROOTS_KEY).ok_or(Error::NoRoots)?.to_owned();
        let roots = credentials::roots(roots.as_bytes()).map_err(|reason| Error::BadRoots { reason })?;
        let token = match &self.0.person.token {
            Some(token) => token.clone(),
            None => self.ask(kubernetes::request_token(
                self.client(),
                SYSTEM_NAMESPACE,
                VIEWER,
                TOKEN_AUDIENCE,
            ))?,
        };
        Ok(Proof {
            token,
            tls: tls::api_client(Arc::new(roots), SYSTEM_NAMESPACE, AGENT),
        })
    }

    fn unanswered(&self, source: kubernetes::Error) -> Error {
        let server = self.0.person.server.clone();
        match () {
            () if source.is_forbidden() => Error::NoRight { source },
            () if source.is_unauthorized() => Error::SignIn { server, source },
            () if source.has_answer() => Error::ApiServer { source },
            () => Error::ApiServerAway { server, source },
        }
    }
}
