//! Certificates and keys from PEM: read, paired, refused with a reason that names what is wrong with the file.

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// Why a PEM file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    /// The text is not PEM.
    #[error("not PEM: {0}")]
    Pem(String),
    /// There is no certificate in it.
    #[error("holds no certificate")]
    NoCertificate,
    /// There is no private key in it.
    #[error("holds no private key (PKCS#8, PKCS#1 or SEC1; an encrypted one cannot be used)")]
    NoKey,
    /// The key cannot be used.
    #[error("the private key cannot be used: {0}")]
    Key(rustls::Error),
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    /// A certificate cannot be used as an authority.
    #[error("certificate {position} cannot be used as an authority: {source}")]
    Authority {
        /// Which one of the file, from 1.
        position: usize,
        /// Why.
        source: rustls::Error,
    },
}

/// The certificates of a PEM file, at least one.
///
/// # Errors
/// Not PEM, or no certificate in it.
pub fn chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| CertError::Pem(error.to_string()))?;
    if chain.is_empty() { Err(CertError::NoCertificate) } else { Ok(chain) }
}

/// The private key of a PEM file.
///
/// # Errors
/// Not PEM, or no key in it.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        if matches!(error, pem::Error::NoItemsFound) {
            CertError::NoKey
        } else {
            CertError::Pem(error.to_string())
        }
    })
}

/// Chain and key as one identity.
///
/// # Errors
/// The key cannot be used, or is another certificate's.
pub fn identity(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<CertifiedKey, CertError> {
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            CertError::Mismatch
        } else {
            CertError::Key(error)
        }
    })
}

/// The authorities of a PEM file.
///
/// # Errors
/// Not PEM, no certificate, or one that cannot be an authority.
pub fn authorities(pem: &[u8]) -> Result<RootCertStore, CertError> {
    let mut store = RootCertStore::empty();
    for (index, certificate) in chain(pem)?.into_iter().enumerate() {
        store.add(certificate).map_err(|source| CertError::Authority { position: index + 1, source })?;
    }
    Ok(store)
}
