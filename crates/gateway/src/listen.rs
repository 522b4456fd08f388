//! The listener: takes connections, serves them, and lets the running ones end when told to stop.

use std::time::Duration;

use axum::Router;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// A reader that takes nothing for so long is gone (decision 33), in milliseconds.
const STALLED_READER_MS: u32 = 120_000;
/// How long connections may take to end after the stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serves until `stop` completes, then for at most ten seconds more.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        // An event is worth a packet of its own.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY was not set");
        }
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, STALLED_READER_MS) {
            tracing::debug!(%error, "TCP_USER_TIMEOUT was not set");
        }
    });
    let (stopping, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
        stop.await;
        let _ = stopping.send(());
    });
    tokio::select! {
        served = serving => served,
        () = async {
            let _ = stopped.await;
            tokio::time::sleep(GRACE).await;
        } => Ok(()),
    }
}
