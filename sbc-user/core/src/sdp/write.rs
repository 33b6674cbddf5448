//! Writing: every line as it is held, each ended by CRLF (RFC 8866 s.5).

use bytes::{BufMut, Bytes, BytesMut};

use super::model::Sdp;

impl Sdp {
    /// The body to send.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let lines = || {
            let media = self.media.iter().map(|media| &media.section);
            std::iter::once(&self.session).chain(media).flat_map(|section| &section.lines)
        };
        let mut body = BytesMut::with_capacity(lines().map(|line| line.0.len() + 2).sum());
        for line in lines() {
            body.put_slice(&line.0);
            body.put_slice(b"\r\n");
        }
        body.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Sdp, SdpError};

    fn rewritten(body: &[u8]) -> Vec<u8> {
        Sdp::parse(body).unwrap().to_bytes().to_vec()
    }

    #[test]
    fn what_is_not_understood_stays_as_it_came() {
        let body = b"v=0\r\no=who is this 1 1 IN IP4 192.0.2.1\r\ns=\xe9t\xe9\r\nX=unknown type\r\nno equals sign\r\n c=IN IP4 192.0.2.1\r\n\
            t=0 0\r\nm=audio   4000\tRTP/AVP  0 8 \r\nb=AS:64.5\r\na=\xff\xfe\r\n  a=sendonly\r\ny=0\r\n";
        assert_eq!(rewritten(body), body);
    }

    #[test]
    fn line_ends_become_crlf_and_empty_lines_go() {
        assert_eq!(
            rewritten(b"\r\nv=0\ns=-\r\n\r\n\na=x\n  \r\nm=audio 0 RTP/AVP 0"),
            b"v=0\r\ns=-\r\na=x\r\nm=audio 0 RTP/AVP 0\r\n"
        );
    }

    #[test]
    fn what_cannot_be_read_names_its_line() {
        for (body, error) in [
            (&b""[..], SdpError::NotVersion0),
            (b"v=1\r\n", SdpError::NotVersion0),
            (b"s=-\r\nv=0\r\n", SdpError::NotVersion0),
            (b"v=0\r\na=x\ry\r\n", SdpError::ControlCharacter { line: 2 }),
            (b"v=0\r\n\r\na=x\0y\r\n", SdpError::ControlCharacter { line: 3 }),
            (
                b"v=0\r\nm=audio RTP/AVP 0\r\n",
                SdpError::Malformed { line: 2, what: "m= wants media, port, protocol and format" },
            ),
            (
                b"v=0\r\nm=audio -1 RTP/AVP 0\r\n",
                SdpError::Malformed { line: 2, what: "m= wants media, port, protocol and format" },
            ),
            (
                b"v=0\r\ns=-\r\nc=IN 192.0.2.1\r\n",
                SdpError::Malformed { line: 3, what: "c= wants network type, address type and address" },
            ),
        ] {
            assert_eq!(Sdp::parse(body), Err(error), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn limits_hold() {
        let long = format!("v=0\r\ns={}\r\n", "x".repeat(super::super::MAX_BYTES));
        assert_eq!(Sdp::parse(long.as_bytes()), Err(SdpError::TooLong));
        let lines = format!("v=0\r\n{}", "a=x\r\n".repeat(super::super::MAX_LINES));
        assert_eq!(Sdp::parse(lines.as_bytes()), Err(SdpError::TooManyLines));
        let media = format!("v=0\r\n{}", "m=audio 0 RTP/AVP 0\r\n".repeat(super::super::MAX_MEDIA + 1));
        assert_eq!(Sdp::parse(media.as_bytes()), Err(SdpError::TooManyMedia));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body: Vec<u8>) {
            let _ = Sdp::parse(&body);
            let _ = Sdp::parse(&[b"v=0\r\n".as_slice(), &body].concat());
        }

        #[test]
        fn reading_and_writing_changes_no_line(lines in prop::collection::vec("[a-z]=[^\r\n\0]{0,40}|[^\r\n\0]{1,20}|m=(audio|video|x) [0-9]{1,6} RTP/AVP 0|c=IN IP4 [a-z0-9.]{1,12}", 0..40)) {
            let lines: Vec<String> = lines.into_iter().filter(|line| !line.as_bytes().trim_ascii().is_empty()).collect();
            let body = format!("v=0\r\n{}", lines.iter().map(|line| format!("{line}\r\n")).collect::<String>());
            if let Ok(sdp) = Sdp::parse(body.as_bytes()) {
                prop_assert_eq!(sdp.to_bytes(), body.as_bytes());
            }
        }
    }
}
