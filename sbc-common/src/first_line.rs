//! Whether a datagram on a SIP port can be meant for it, judged by its first eight bytes.
//!
//! Only what is certainly neither a request, nor a response, nor a keep-alive is refused: whether it *is* SIP the parser
//! says. RFC 3261 s.7 (start line: a method is a token), s.7.5 (line ends in front of it), RFC 5626 s.3.5
//! (keep-alives: line ends, STUN).

/// Bytes that are looked at.
pub const LOOKED_AT: usize = 8;

/// Bytes that are looked at for a scanner's probe, where there are as many.
pub const PROBE_BYTES: usize = 16;

/// Begins of first lines that only scanners write: nmap's probe of services. Where a scanner shows itself further
/// back, in a header, the daemon finds it and denies its source.
const PROBES: [[u8; PROBE_BYTES]; 1] = [*b"OPTIONS sip:nm S"];

/// Whether a datagram is the probe of a scanner, by its first two words in memory order.
#[inline(always)]
#[must_use]
pub const fn is_probe(first: u64, second: u64) -> bool {
    let mut at = 0;
    while at < PROBES.len() {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = PROBES[at];
        if first == u64::from_ne_bytes([a, b, c, d, e, f, g, h])
            && second == u64::from_ne_bytes([i, j, k, l, m, n, o, p])
        {
            return true;
        }
        at += 1;
    }
    false
}

/// Longest datagram that passes without a look: keep-alives without a standard, a few bytes of anything.
pub const SHORT_KEEP_ALIVE_BYTES: usize = 4;

/// STUN's magic cookie (RFC 8489 s.5), bytes 4 to 7.
const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// Whether a datagram may be SIP or a keep-alive. `start` is read up to `payload_bytes`.
#[inline(always)]
#[must_use]
pub const fn may_be_sip(start: [u8; LOOKED_AT], payload_bytes: usize) -> bool {
    if payload_bytes < LOOKED_AT {
        return payload_bytes <= SHORT_KEEP_ALIVE_BYTES;
    }
    let [first, _, _, _, a, b, c, d] = start;
    if first == b'\r' || first == b'\n' {
        return true;
    }
    if first < 4 {
        return u32::from_ne_bytes([a, b, c, d]) == u32::from_ne_bytes(STUN_COOKIE);
    }
    // "SIP/2.0 ": the version of a response is compared without regard to case (RFC 3261 s.7.1).
    let lower = u64::from_ne_bytes(start) | u64::from_ne_bytes([0x20; LOOKED_AT]);
    if lower == u64::from_ne_bytes(*b"sip/2.0 ") {
        return true;
    }
    let mut at = 0;
    while at < LOOKED_AT {
        let byte = start[at];
        if byte == b' ' {
            return at > 0;
        }
        if !is_token(byte) {
            return false;
        }
        at += 1;
    }
    true
}

/// The bytes of a token (RFC 3261 s.25.1), one bit each.
const TOKEN: [u64; 2] = {
    let mut bits = [0; 2];
    let mut byte = 0;
    while byte < 128u8 {
        if byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~')
        {
            bits[(byte >> 6) as usize] |= 1 << (byte & 63);
        }
        byte += 1;
    }
    bits
};

#[inline(always)]
const fn is_token(byte: u8) -> bool {
    let [low, high] = TOKEN;
    let bits = if byte < 64 {
        low
    } else if byte < 128 {
        high
    } else {
        0
    };
    (bits >> (byte & 63)) & 1 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(datagram: &[u8]) -> bool {
        let mut start = [0; LOOKED_AT];
        let looked_at = datagram.len().min(LOOKED_AT);
        start[..looked_at].copy_from_slice(&datagram[..looked_at]);
        may_be_sip(start, datagram.len())
    }

    #[test]
    fn sip_and_keep_alives_pass() {
        let good: [&[u8]; 16] = [
            b"INVITE sip:a@b SIP/2.0",
            b"ACK sip:a@b SIP/2.0",
            b"SUBSCRIBE sip:a@b SIP/2.0",
            b"!interesting-Method0123456789_*+`.%indeed'~ sip:a SIP/2.0",
            b"X a SIP/2.0",
            b"SIP/2.0 200 OK",
            b"sip/2.0 200 OK",
            b"\r\nINVITE sip:a@b SIP/2.0",
            b"\r\n\r\n",
            b"\r\n",
            b"",
            b"\0",
            b"\0\0\0\0",
            b"jaK",
            &[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
            b"\n\n\n\n\n\n\n\n\n",
        ];
        for datagram in good {
            assert!(judge(datagram), "{}", datagram.escape_ascii());
        }
    }

    #[test]
    fn a_scanner_is_known_by_its_probe() {
        let judge = |line: &[u8; PROBE_BYTES]| {
            let ([a @ .., _, _, _, _, _, _, _, _], [_, _, _, _, _, _, _, _, b @ ..]) = (*line, *line);
            is_probe(u64::from_ne_bytes(a), u64::from_ne_bytes(b))
        };
        assert!(judge(b"OPTIONS sip:nm S"));
        assert!(!judge(b"OPTIONS sip:nmx@") && !judge(b"REGISTER sip:nm "));
    }

    #[test]
    fn what_cannot_be_sip_is_refused() {
        let bad: [&[u8]; 12] = [
            b" INVITE sip:a@b",
            b"{\"method\":1}",
            b"<?xml version",
            b"GET/ HTTP/1.1",
            b"SIP/3.0 200 OK",
            b"INV\0TE sip:a@b",
            b"\x80\x00\x12\x34\x00\x00\x00\xa0\xde\xad\xbe\xef",
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"\0\0\0\0\0\0\0\0\0\0",
            b"INVITE",
            b"hello",
            b"\xff\xff\xff\xffgetstatus",
        ];
        for datagram in bad {
            assert!(!judge(datagram), "{}", datagram.escape_ascii());
        }
    }

    #[test]
    fn a_token_is_what_the_grammar_says() {
        for byte in 0..=u8::MAX {
            let expected = byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
            assert_eq!(is_token(byte), expected, "{byte:#x}");
        }
    }
}
