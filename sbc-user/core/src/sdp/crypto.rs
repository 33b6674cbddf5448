//! Security descriptions (SDES, RFC 4568): which lines hold keys, so that no log does.
//!
//! The keys themselves pass from one side to the other unread.

use super::model::{Line, Section};

/// Stands where a key was.
const REDACTED: &str = "[redacted]";

/// Whether a stream's keys are exchanged in its a=crypto lines.
pub(super) fn has_sdes(section: &Section) -> bool {
    section.attribute("crypto").is_some()
}

/// A line as it may be shown.
pub(super) fn without_keys(line: &Line) -> String {
    if line.is(b'k') {
        return format!("k={REDACTED}");
    }
    if let Some(attribute) = line.attribute()
        && ["ice-pwd", "key-mgmt"].iter().any(|name| attribute.is(name))
    {
        return format!("a={}:{REDACTED}", String::from_utf8_lossy(attribute.name));
    }
    let text = String::from_utf8_lossy(&line.0);
    // Wherever it stands, also inside a capability (RFC 5939).
    match text.to_ascii_lowercase().find("inline:") {
        Some(key) => format!("{}{REDACTED}", &text[..key]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Sdp;

    #[test]
    fn keys_do_not_show_in_debug_output() {
        let body = "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nc=IN IP4 192.0.2.1\r\nk=clear:SECRET\r\nm=audio 4000 RTP/SAVP 0\r\n\
            a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:SECRET|2^20;inline:SECRET\r\na=ice-pwd:SECRET\r\n\
            a=acap:1 crypto:1 AES_CM_128_HMAC_SHA1_32 INLINE:SECRET\r\na=key-mgmt:mikey SECRET\r\n a=ICE-PWD:SECRET\r\n";
        let shown = format!("{:?}", Sdp::parse(body.as_bytes()).unwrap());
        assert!(!shown.contains("SECRET"), "{shown}");
        assert!(shown.contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 [redacted]"), "{shown}");
    }
}
