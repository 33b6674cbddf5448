//! Whether a message calls for help, told from its first line before anything else is read of it.
//!
//! `INVITE urn:service:sos…` (RFC 5031 s.4.2), or an INVITE for one of the numbers that the configuration names. Only
//! good for being lenient: nobody is believed to be in need because he says so.

/// Whether it is an INVITE to an emergency service. `numbers` are compared as they are.
#[must_use]
pub fn is_urgent(message: &[u8], numbers: &[String]) -> bool {
    let Some(uri) = message.strip_prefix(b"INVITE ") else { return false };
    let uri = uri.split(|byte| matches!(byte, b' ' | b'\r' | b'\n')).next().unwrap_or_default();
    let Some(colon) = uri.iter().position(|byte| *byte == b':') else { return false };
    let (scheme, rest) = (&uri[..colon], &uri[colon + 1..]);
    let sos = b"service:sos";
    if scheme.eq_ignore_ascii_case(b"urn") {
        let (service, below) = rest.split_at(rest.len().min(sos.len()));
        return service.eq_ignore_ascii_case(sos) && matches!(below.first(), None | Some(b'.'));
    }
    if ![&b"sip"[..], b"sips", b"tel"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return false;
    }
    let user = rest.split(|byte| matches!(byte, b'@' | b';' | b'?')).next().unwrap_or_default();
    numbers.iter().any(|number| number.as_bytes() == user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_for_help_is_told_by_its_first_line() {
        let numbers = ["112".to_owned(), "911".to_owned()];
        for (line, urgent) in [
            ("INVITE urn:service:sos SIP/2.0\r\n", true),
            ("INVITE URN:service:SOS.fire SIP/2.0\r\n", true),
            ("INVITE sip:112@sbc.example;user=phone SIP/2.0\r\n", true),
            ("INVITE sips:911@[2001:db8::1]:5061 SIP/2.0\r\n", true),
            ("INVITE tel:112;phone-context=+49 SIP/2.0\r\n", true),
            ("INVITE urn:service:sosumi SIP/2.0\r\n", false),
            ("INVITE urn:service:counseling SIP/2.0\r\n", false),
            ("INVITE sip:1123@sbc.example SIP/2.0\r\n", false),
            ("INVITE sip:112 ", true),
            ("INVITE http:112 SIP/2.0\r\n", false),
            ("OPTIONS sip:112@sbc.example SIP/2.0\r\n", false),
            ("INVITE ", false),
            ("", false),
        ] {
            assert_eq!(is_urgent(line.as_bytes(), &numbers), urgent, "{line:?}");
        }
        assert!(!is_urgent(b"INVITE sip:112@a SIP/2.0", &[]));
    }
}
