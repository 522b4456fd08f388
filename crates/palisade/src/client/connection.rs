//! Where the server is and which key opens it: options, then the environment, then the key that a server on this
//! machine wrote at its first start. The key is never printed.

use std::path::PathBuf;

use super::api::Api;
use super::error::ClientError;

/// How to reach the server.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The server's address.
    #[arg(
        long,
        env = "POKEE_API",
        default_value = "http://127.0.0.1:8080",
        global = true,
        value_name = "URL"
    )]
    url: String,
    /// The key (pk_…). Better set as POKEE_KEY: other users of a machine can read command lines.
    #[arg(long, env = "POKEE_KEY", hide_env_values = true, global = true, value_name = "KEY")]
    key: Option<String>,
    /// Without a key: the data directory of a server on this machine, whose admin.key is used.
    #[arg(long, default_value = "palisade-data", global = true, value_name = "DIR")]
    data_dir: PathBuf,
}

impl Connection {
    /// Finds the key; does not connect yet.
    pub(super) fn open(&self) -> Result<Api, ClientError> {
        let (key, origin) = match self.key.as_deref().map(str::trim).filter(|key| !key.is_empty()) {
            Some(key) => (key.to_owned(), "--key or POKEE_KEY".to_owned()),
            None => {
                let path = self.data_dir.join("admin.key");
                let text = std::fs::read_to_string(&path)
                    .map_err(|source| ClientError::NoKey { path: path.clone(), source })?;
                (text.trim().to_owned(), path.display().to_string())
            }
        };
        Api::new(&self.url, &key, origin)
    }
}
