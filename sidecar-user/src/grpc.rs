//! HOW IS A CALL ANSWERED? What answers the requests of a gRPC service, as tonic wants its services. Knows no message and no
//! service.

use std::convert::Infallible;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;

/// Cheap to clone: each request has one of its own.
pub trait Answers: Clone + Send + 'static {
    /// A refusal is an answer, too.
    fn answer(self, request: http::Request<Body>) -> impl Future<Output = http::Response<Body>> + Send;
}

/// It is ready at any time; what has to wait, waits in its answer.
#[derive(Clone, Debug)]
pub struct Answering<A>(pub A);

impl<A: Answers> Service<http::Request<Body>> for Answering<A> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answers = self.0.clone();
        Box::pin(async move { Ok(answers.answer(request).await) })
    }
}

impl<A: NamedService> NamedService for Answering<A> {
    const NAME: &'static str = A::NAME;
}
