//! Whether two URIs mean the same (RFC 3261 s.19.1.4).

use crate::sip::Uri;

/// Parameters that decide where a request goes: they must be equal or absent on both sides.
const DECISIVE: [&str; 5] = ["transport", "user", "ttl", "method", "maddr"];

pub(super) fn equivalent(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    if !a.is_sip() || !b.is_sip() {
        let rest = |u: &Uri<'_>| u.as_str().len() - u.scheme().len();
        return a.scheme().eq_ignore_ascii_case(b.scheme())
            && a.as_str()[a.as_str().len() - rest(a)..] == b.as_str()[b.as_str().len() - rest(b)..];
    }
    a.is_sips() == b.is_sips()
        && option_eq(a.user(), b.user(), true)
        && option_eq(a.password(), b.password(), true)
        && a.host_text().eq_ignore_ascii_case(b.host_text())
        && a.port() == b.port()
        && params_agree(a, b)
        && DECISIVE.iter().all(|name| a.param(name).is_some() == b.param(name).is_some())
        && headers_agree(a, b)
        && headers_agree(b, a)
}

/// Parameters in both must be equal; any other one may be on one side only.
fn params_agree(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    // Each lookup walks the other list: bounded by the square of the few hundred parameters that fit a start line.
    a.params()
        .all(|(name, value)| b.param(name).is_none_or(|other| same(value.unwrap_or_default(), other, false)))
}

fn headers_agree(a: &Uri<'_>, b: &Uri<'_>) -> bool {
    a.headers().all(|(name, value)| {
        b.headers().any(|(n, v)| {
            same(name, n, false) && same(value.unwrap_or_default(), v.unwrap_or_default(), true)
        })
    })
}

fn option_eq(a: Option<&str>, b: Option<&str>, case_sensitive: bool) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => same(a, b, case_sensitive),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Equal after undoing escapes, except that an escaped reserved character differs from the bare one.
fn same(a: &str, b: &str, case_sensitive: bool) -> bool {
    let fold = |(byte, reserved): (u8, bool)| {
        (if case_sensitive { byte } else { byte.to_ascii_lowercase() }, reserved)
    };
    unescaped(a).map(fold).eq(unescaped(b).map(fold))
}

/// The bytes, and for each whether it is a reserved character that was escaped.
fn unescaped(text: &str) -> impl Iterator<Item = (u8, bool)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        if byte == b'%'
            && let Some(value) = bytes.get(at + 1..at + 3).and_then(hex)
        {
            at += 3;
            let reserved = !(value.is_ascii_alphanumeric()
                || matches!(value, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')'));
            return Some((value, reserved));
        }
        at += 1;
        Some((byte, false))
    })
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(crate::sip::lex::text(digits)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use crate::sip::Uri;

    fn equivalent(a: &str, b: &str) -> bool {
        let (a, b) = (Uri::parse(a).unwrap(), Uri::parse(b).unwrap());
        assert_eq!(a.equivalent(&b), b.equivalent(&a), "symmetric: {a} {b}");
        a.equivalent(&b)
    }

    #[test]
    fn same_meaning() {
        for (a, b) in [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtlanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
            (
                "sip:biloxi.com;transport=tcp;method=REGISTER?to=a",
                "sip:biloxi.com;method=REGISTER;transport=tcp?to=a",
            ),
            (
                "sip:alice@atlanta.com?subject=x&priority=urgent",
                "sip:alice@atlanta.com?priority=urgent&subject=x",
            ),
            ("TEL:+1555", "tel:+1555"),
        ] {
            assert!(equivalent(a, b), "{a} {b}");
        }
    }

    #[test]
    fn different_meaning() {
        for (a, b) in [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;newparam=6"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?subject=next"),
            ("sip:a%40b@h", "sip:a@h"),
            ("sip:h", "sip:a@h"),
            ("tel:+1555", "tel:+1556"),
        ] {
            assert!(!equivalent(a, b), "{a} {b}");
        }
    }
}
