//! Logs go to standard error: JSON for machines, lines for a terminal. `PALISADE_LOG` filters them. Nothing of the server waits for
//! whoever reads them (see [`writer`]).

mod writer;

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;
use std::time::Duration;

use clap::ValueEnum;
use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::EnvFilter;
use writer::LogWriter;

/// How long the end of the process waits for the last lines.
const LAST_LINES_MAX: Duration = Duration::from_secs(1);

static LOG: OnceLock<LogWriter> = OnceLock::new();

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Json,
    Text,
}

/// From here on everything that is logged waits to be written; no thread is started yet.
pub(crate) fn start(format: Option<LogFormat>) -> std::io::Result<()> {
    let stderr = std::io::stderr();
    let default = if stderr.is_terminal() { LogFormat::Text } else { LogFormat::Json };
    let out = stderr.as_fd().try_clone_to_owned()?;
    let log = LOG.get_or_init(|| LogWriter::new(out)).clone();
    let filter = EnvFilter::try_from_env("PALISADE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,sqlx::postgres::notice=warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(move || log.clone());
    match format.unwrap_or(default) {
        LogFormat::Json => {
            subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false).init()
        }
        LogFormat::Text => subscriber.with_ansi(stderr.is_terminal()).with_target(false).init(),
    }
    // The usual hook writes to standard error itself, and would wait there.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let said = panic.payload_as_str().unwrap_or("");
        tracing::error!(place, said, "a bug of Palisade's: a thread panicked");
        // With the main thread ends the process.
        if std::thread::current().name() == Some("main") {
            say_last("");
        }
    }));
    Ok(())
}

/// Begins to write. To be called once threads may be started.
pub(crate) fn start_writing() {
    if let Some(log) = LOG.get() {
        log.start(|lost| {
            tracing::warn!(lost, "log lines were lost: standard error did not take them in time")
        });
    }
}

/// Lines that were lost because standard error did not take them.
pub(crate) fn lost() -> Option<Counter> {
    LOG.get().map(|log| log.lost().clone())
}

/// Says something to a person, on standard error, after what was logged; and waits a moment until it is written.
pub(crate) fn say_last(text: &str) {
    let Some(mut log) = LOG.get().cloned() else {
        // Nobody can be told when that fails.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
        return;
    };
    let _ = log.write_all(text.as_bytes());
    log.finish(LAST_LINES_MAX);
}
