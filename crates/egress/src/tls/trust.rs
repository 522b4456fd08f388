//! Whose word upstreams are believed on: the system's certificate authorities, and those that an operator names.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::EgressError;

/// How upstreams prove who they are. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Trust {
    pub(crate) client: Arc<ClientConfig>,
}

impl Trust {
    /// Reads the system's authorities, or those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name, and these PEM files.
    ///
    /// # Errors
    /// When a file that was named cannot be read or holds no certificate, or when there is no authority at all.
    pub fn load(files: &[PathBuf]) -> Result<Self, EgressError> {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate authority of the system cannot be read");
        }
        // Some systems have one or two that no reader understands.
        roots.add_parsable_certificates(found.certs);
        for file in files {
            add_file(&mut roots, file)?;
        }
        if roots.is_empty() {
            return Err(EgressError::NoAuthorities);
        }
        Self::of(roots)
    }

    fn of(roots: RootCertStore) -> Result<Self, EgressError> {
        let mut client = super::builder_of_clients()?.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { client: Arc::new(client) })
    }
}

fn add_file(roots: &mut RootCertStore, file: &Path) -> Result<(), EgressError> {
    let wrong = |why: String| EgressError::Authorities { path: file.to_owned(), why };
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
    let mut count = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(wrong("there is no certificate in it".into())) } else { Ok(()) }
}
