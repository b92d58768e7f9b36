//! A bug that an answer of the authority brings up costs the attempt, as any other failure does: the certificate in force
//! stays, and the next attempt comes in its time. Counts and logs nothing: the process's hook for panics does.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

use super::Error;

pub(super) async fn contained<T>(attempt: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let mut attempt = pin!(attempt);
    poll_fn(|cx| {
        // It is not polled again after a panic, and nobody else has what it may have left half done.
        let polled = catch_unwind(AssertUnwindSafe(|| attempt.as_mut().poll(cx)));
        polled.unwrap_or(Poll::Ready(Err(Error::Bug)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_attempt_that_panics_has_failed() {
        let buggy = contained(async {
            tokio::task::yield_now().await;
            panic!("a bug in the middle of an attempt")
        });
        let failed: Result<(), Error> = buggy.await;
        assert!(matches!(failed, Err(Error::Bug)));
        assert!(matches!(contained(async { Ok(5) }).await, Ok(5)));
    }
}
