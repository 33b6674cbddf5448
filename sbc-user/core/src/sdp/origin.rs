//! Our own identity in the descriptions that we send on one leg: one session id for the leg's life, and a version that
//! rises exactly when the description changes (RFC 3264 s.8, RFC 8866 s.5.2).

use std::net::IpAddr;

use bytes::Bytes;

use super::anchor::{Addressing, rewrite};
use super::model::Sdp;

/// What this SBC has described on a leg so far.
#[derive(Clone, Debug)]
pub struct LocalOrigin {
    session_id: u64,
    version: u64,
    last: Option<Sdp>,
}

impl LocalOrigin {
    /// A leg on which nothing has been described; `random` makes its session id unique.
    #[must_use]
    pub const fn new(random: u64) -> Self {
        // Readers exist that take it for a signed number.
        Self { session_id: random >> 1, version: 1, last: None }
    }

    /// The other leg's description as this leg's peer gets it: see [`rewrite`].
    pub fn describe(
        &mut self,
        other: &Sdp,
        advertised: IpAddr,
        ports: &[Option<u16>],
        rtcp_mux: &[bool],
    ) -> Sdp {
        let (session_id, version) = (self.session_id, self.version);
        let addressing =
            |session_version| Addressing { advertised, ports, rtcp_mux, session_id, session_version };
        let mut description = rewrite(other, &addressing(version));
        if self.last.as_ref().is_some_and(|last| *last != description) {
            description = rewrite(other, &addressing(version + 1));
            self.version += 1;
        }
        self.last = Some(description.clone());
        description
    }

    /// The last description, to be sent again.
    #[must_use]
    pub const fn last(&self) -> Option<&Sdp> {
        self.last.as_ref()
    }

    /// The body of the last description.
    #[must_use]
    pub fn last_body(&self) -> Option<Bytes> {
        self.last.as_ref().map(Sdp::to_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_rises_when_the_description_changes_and_only_then() {
        let sdp = |codec: u8, version: u8| {
            let body = format!(
                "v=0\r\no=- 7 {version} IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\nm=audio 4000 RTP/AVP {codec}\r\n"
            );
            Sdp::parse(body.as_bytes()).unwrap()
        };
        let mut origin = LocalOrigin::new(84);
        let mut say = |sdp: &Sdp, port| {
            let body = origin.describe(sdp, "198.51.100.1".parse().unwrap(), &[Some(port)], &[]).to_bytes();
            String::from_utf8(body.to_vec()).unwrap().lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(say(&sdp(0, 1), 5000), "o=- 42 1 IN IP4 198.51.100.1");
        assert_eq!(say(&sdp(0, 1), 5000), "o=- 42 1 IN IP4 198.51.100.1");
        assert_eq!(
            say(&sdp(0, 9), 5000),
            "o=- 42 1 IN IP4 198.51.100.1",
            "the other side's version alone is no change"
        );
        assert_eq!(say(&sdp(8, 9), 5000), "o=- 42 2 IN IP4 198.51.100.1");
        assert_eq!(say(&sdp(8, 9), 5002), "o=- 42 3 IN IP4 198.51.100.1");
        assert_eq!(say(&sdp(8, 9), 5002), "o=- 42 3 IN IP4 198.51.100.1");
    }
}
