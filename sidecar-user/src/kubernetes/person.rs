//! Who a person is to the API server: the connection that a kubeconfig describes, and the token that it shows there. Everything that
//! kubectl takes is taken: KUBECONFIG, contexts, tokens, files, and programs that get them.

use std::path::Path;

use futures_util::future::{Ready, ok};
use http::header::AUTHORIZATION;
use http::{Request, Response};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use kube::client::{Body, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use tower::{Layer, ServiceExt, service_fn};
use zeroize::Zeroizing;

use super::{Client, Error};

pub struct Person {
    pub client: Client,
    /// Of the context.
    pub namespace: String,
    /// Of the API server.
    pub server: String,
    /// What is shown to the API server. `None`: a certificate.
    pub token: Option<Zeroizing<String>>,
}

/// By this kubeconfig and context, or as kubectl finds them; in a pod without either, its service account. Connects to nobody but a
/// program that the kubeconfig names.
pub async fn person(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Person, Error> {
    let bad = |source: KubeconfigError| Error::Kubeconfig {
        path: kubeconfig.map_or_else(|| "KUBECONFIG or ~/.kube/config".into(), Path::to_owned),
        source: Box::new(source),
    };
    let read = match kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let config = match read {
        Ok(read) => kube::Config::from_custom_kubeconfig(read, &options)
            .await
            .map_err(bad)?,
        // Nothing was asked for, and nothing is there: perhaps this is a pod.
        Err(error) if kubeconfig.is_none() && context.is_none() => {
            kube::Config::incluster_env().map_err(|_| bad(error))?
        }
        Err(error) => return Err(bad(error)),
    };
    if let Some(user) = &config.auth_info.impersonate {
        return Err(Error::Impersonation { user: user.clone() });
    }
    let token = token(&config).await?;
    Ok(Person {
        namespace: config.default_namespace.clone(),
        server: config.cluster_url.to_string(),
        token,
        client: Client::of(config)?,
    })
}

/// The library shows it to the API server with each request, so it is taken from one that goes nowhere.
async fn token(config: &kube::Config) -> Result<Option<Zeroizing<String>>, Error> {
    let unusable = |source| Error::Client { source };
    let Some(layer) = config.auth_layer().map_err(unusable)? else {
        return Ok(None);
    };
    let shown = layer.layer(service_fn(
        |request: Request<Body>| -> Ready<Result<_, tower::BoxError>> {
            let header = request.headers().get(AUTHORIZATION).cloned();
            ok(Response::new(header))
        },
    ));
    let shown = shown.oneshot(Request::new(Body::empty())).await;
    let header = shown
        .map_err(|source| unusable(kube::Error::Service(source)))?
        .into_body();
    let header = header.as_ref().and_then(|header| header.to_str().ok());
    let token = header.and_then(|header| header.strip_prefix("Bearer "));
    Ok(token.map(|token| Zeroizing::new(token.to_owned())))
}

/// A token of a service account that somebody who may have it asks for. It lives ten minutes.
pub async fn request_token(
    client: &Client,
    namespace: &str,
    account: &str,
    audience: &str,
) -> Result<Zeroizing<String>, Error> {
    let api: Api<ServiceAccount> = Api::namespaced(client.inner(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            expiration_seconds: Some(600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let made = api
        .create_token_request(account, &PostParams::default(), &request)
        .await;
    let made =
        made.map_err(|source| Error::asked("give a token of the service account outrigger-viewer", source))?;
    let token = made.status.and_then(|status| status.token);
    Ok(Zeroizing::new(token.unwrap_or_default()))
}
