//! The way to a running server: plain HTTP over the socket in its data directory.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;

/// One segment of a path or one value of a query, whatever was typed.
pub(crate) fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A server that can be asked.
pub(crate) struct Socket {
    path: PathBuf,
    client: Client,
}

impl Socket {
    /// Does not connect yet.
    pub(crate) fn open(data_dir: &Path) -> Result<Self> {
        let path = data_dir.join(crate::serve::admin::SOCKET);
        let client = Client::builder()
            .unix_socket(path.clone())
            .no_proxy()
            .build()
            .context("setting up the HTTP client")?;
        Ok(Self { path, client })
    }

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("http://palisade{path}"))
    }

    /// GET with a query; values may be anything.
    pub(crate) fn get_with(&self, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let pairs: Vec<String> =
            query.iter().map(|(name, value)| format!("{name}={}", encoded(value))).collect();
        self.get(&format!("{path}?{}", pairs.join("&")))
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("http://palisade{path}"))
    }

    pub(crate) fn put(&self, path: &str) -> RequestBuilder {
        self.client.put(format!("http://palisade{path}"))
    }

    pub(crate) fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(format!("http://palisade{path}"))
    }

    /// Sends, and reads JSON.
    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value> {
        let text = self.send(request).await?.text().await.context("reading the server's answer")?;
        serde_json::from_str(&text).context("the server's answer is not JSON")
    }

    /// Sends; what the server refuses is an error in its own words.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let answer = request.send().await.with_context(|| {
            format!(
                "no server answers on {}; name the data directory of a running one with --data-dir, and call as its \
                 user or root",
                self.path.display()
            )
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let text = answer.text().await.unwrap_or_default();
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        match body["message"].as_str() {
            Some(message) => bail!("{message}"),
            None => bail!("the server answered {status}"),
        }
    }
}
