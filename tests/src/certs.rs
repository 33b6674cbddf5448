//! A certificate authority for one test, and a server certificate from it, as PEM files.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

use crate::process::Scratch;

/// Paths of the PEM files.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// What a client trusts.
    pub authority: PathBuf,
    /// The server's chain.
    pub certificate: PathBuf,
    /// The server's key.
    pub key: PathBuf,
}

/// Makes a new authority and a certificate for a server at `address`.
pub fn generate(address: IpAddr, scratch: &Scratch) -> Result<Certificates> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "sbc test authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority =
        CertifiedIssuer::self_signed(params, KeyPair::generate()?).context("cannot make an authority")?;

    let mut params = CertificateParams::default();
    // Clients of the older kind compare the common name, the others the alternative name.
    params.distinguished_name.push(DnType::CommonName, address.to_string());
    params.subject_alt_names.push(SanType::IpAddress(address));
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &authority).context("cannot make a certificate")?;
    Ok(Certificates {
        authority: scratch.write("authority.pem", authority.pem())?,
        certificate: scratch.write("certificate.pem", certificate.pem())?,
        key: scratch.write("key.pem", key.serialize_pem())?,
    })
}
