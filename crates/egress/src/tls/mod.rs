//! TLS on either leg: towards an upstream, whose certificate must be its name's, and towards a session that trusts an authority of its own.
//! It must never send a byte of a request before the other side has proved who it is.

mod authority;
mod session;
mod trust;

use std::sync::Arc;

use rustls::{ClientConfig, ConfigBuilder, ServerConfig, WantsVerifier, crypto::CryptoProvider};

pub(crate) use authority::Authority;
pub(crate) use session::{Tls, TlsFault};
pub use trust::Trust;

use crate::EgressError;

/// The one provider of cryptography.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// TLS 1.2 and 1.3, the library's own choice of what is safe.
fn builder_of_clients() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, EgressError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(EgressError::Tls)
}

fn builder_of_servers() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, EgressError> {
    ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(EgressError::Tls)
}
