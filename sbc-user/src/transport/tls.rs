//! TLS under SIP: who we are on a listener, and how the peers that we connect to are verified. TLS 1.2 and 1.3.

pub mod certs;
mod unverified;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use sbc_core::config::NextHop;
use sbc_core::id::ListenerId;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::limits;
use crate::config::{TlsFiles, TlsPeer};

/// TLS of one listener, both ways.
#[derive(Clone)]
pub(super) struct Endpoint {
    acceptor: TlsAcceptor,
    peers: Arc<HashMap<SocketAddr, (TlsConnector, Option<ServerName<'static>>)>>,
}

impl Endpoint {
    /// Reads the listener's identity and the authorities of its next hops.
    pub(super) fn load(
        listener: ListenerId,
        files: &TlsFiles,
        peers: &[(NextHop, TlsPeer)],
    ) -> anyhow::Result<Self> {
        let read = |path: &Path| std::fs::read(path).with_context(|| path.display().to_string());
        let chain = certs::chain(&read(&files.certificate)?)
            .with_context(|| files.certificate.display().to_string())?;
        let key = certs::private_key(&read(&files.key)?).with_context(|| files.key.display().to_string())?;
        let identity = certs::identity(chain, key).with_context(|| files.key.display().to_string())?;
        let identity = Arc::new(SingleCertAndKey::from(identity));

        let provider = Arc::new(aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(identity.clone());

        let mut connectors = HashMap::new();
        for (next_hop, how) in peers.iter().filter(|(next_hop, _)| next_hop.listener == listener) {
            let builder = ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()?
                .dangerous();
            let (builder, name) = match how {
                TlsPeer::Verified { authorities, name } => {
                    let roots: RootCertStore = certs::authorities(&read(authorities)?)
                        .with_context(|| authorities.display().to_string())?;
                    let verifier =
                        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                            .build()?;
                    let name = name.clone().map(ServerName::try_from).transpose()?;
                    (builder.with_custom_certificate_verifier(verifier), name)
                }
                TlsPeer::Unverified => {
                    let verifier = Arc::new(unverified::AnyCertificate(provider.clone()));
                    (builder.with_custom_certificate_verifier(verifier), None)
                }
            };
            // The same identity that we show to who connects to us: a peer may ask for it.
            let client = builder.with_client_cert_resolver(identity.clone());
            connectors.insert(next_hop.remote, (TlsConnector::from(Arc::new(client)), name));
        }
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(server)), peers: Arc::new(connectors) })
    }

    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        match tokio::time::timeout(limits::HANDSHAKE, self.acceptor.accept(stream)).await {
            Ok(accepted) => accepted.map(TlsStream::Server),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Only configured next hops are connected to: for anybody else there is nothing to verify a certificate against.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> io::Result<TlsStream<TcpStream>> {
        let Some((connector, name)) = self.peers.get(&remote) else {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a configured TLS next hop"));
        };
        let name = name.clone().unwrap_or_else(|| ServerName::IpAddress(remote.ip().into()));
        match tokio::time::timeout(limits::HANDSHAKE, connector.connect(name, stream)).await {
            Ok(connected) => connected.map(TlsStream::Client),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Whether a connection to `remote` could be verified at all.
    pub(super) fn knows(&self, remote: SocketAddr) -> bool {
        self.peers.contains_key(&remote)
    }
}
