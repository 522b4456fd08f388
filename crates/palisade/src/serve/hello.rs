//! The first lines on standard output. A server works whether or not anybody reads them.

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use super::keys::Shown;

/// How long whoever reads standard output may take for the first lines.
const HELLO_MAX: Duration = Duration::from_secs(1);

/// What a person who has just started the server needs. A server works whether or not anybody reads this.
pub(super) async fn say(address: SocketAddr, shown: &Shown, is_demo_planner: bool) {
    tracing::info!(%address, "listening");
    let told = lines(address, shown, is_demo_planner, std::io::stdout().is_terminal());
    // In a thread of its own: a pipe that nobody reads may be full.
    let (said, written) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut out = std::io::stdout().lock();
        let _ = said.send(out.write_all(told.as_bytes()).and_then(|()| out.flush()));
    });
    if !matches!(tokio::time::timeout(HELLO_MAX, written).await, Ok(Ok(Ok(())))) {
        tracing::debug!("nobody reads standard output");
    }
}

/// The key itself is for eyes only: whatever is no terminal may keep what it gets.
fn lines(address: SocketAddr, shown: &Shown, is_demo_planner: bool, is_terminal: bool) -> String {
    use secrecy::ExposeSecret as _;
    let mut lines = vec![format!("listening on http://{address}")];
    match shown {
        Shown::New { key, file } if is_terminal => lines.push(format!(
            "key          {} (shown once; also in {})",
            key.expose_secret(),
            file.display()
        )),
        Shown::New { file, .. } | Shown::Kept { file } => {
            lines.push(format!("key          in {}", file.display()));
        }
        Shown::Configured => {}
    }
    if is_demo_planner {
        lines.push(
            "model        none configured: the built-in demo planner answers; see [[upstream]] in the README"
                .to_owned(),
        );
    }
    lines.push(format!("docs         http://{address}/docs\n"));
    lines.join("\n")
}
