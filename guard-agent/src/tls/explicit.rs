//! Guard's authority behind hudsucker's interface, so that an explicit-proxy listener can present the same leaves.
//! Everything that knows hudsucker is in this file.

use std::sync::Arc;

use http::uri::Authority;
use hudsucker::certificate_authority::CertificateAuthority;
use rustls::ServerConfig;

use crate::tls::Terminator;

impl CertificateAuthority for Terminator {
    async fn gen_server_config(&self, _authority: &Authority) -> Arc<ServerConfig> {
        // The leaf is chosen by the server name of the handshake, which the explicit proxy compares with `_authority`.
        self.server_config()
    }
}
