//! Whether two URIs mean the same (RFC 3261 s.19.1.4).

use std::cmp::Ordering;

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
        && a.user().map(exact) == b.user().map(exact)
        && a.password().map(exact) == b.password().map(exact)
        && a.host_text().eq_ignore_ascii_case(b.host_text())
        && a.port() == b.port()
        && params_agree(&params(a), &params(b))
        && headers(a) == headers(b)
}

/// Name and value, comparable as bytes.
type Pair = (Vec<u8>, Vec<u8>);

/// By name; of several with one name the first counts.
fn params(uri: &Uri<'_>) -> Vec<Pair> {
    let mut params: Vec<Pair> =
        uri.params().map(|(name, value)| (folded(name), folded(value.unwrap_or_default()))).collect();
    params.sort_by(|a, b| a.0.cmp(&b.0));
    params.dedup_by(|later, first| later.0 == first.0);
    params
}

/// By name and value, each as often as it is there.
fn headers(uri: &Uri<'_>) -> Vec<Pair> {
    let mut headers: Vec<Pair> =
        uri.headers().map(|(name, value)| (folded(name), exact(value.unwrap_or_default()))).collect();
    headers.sort();
    headers
}

/// Parameters in both must be equal; one that is not decisive may be on one side only. Both lists are sorted, so that
/// a peer's thousand parameters cost a walk and not a square.
fn params_agree(mut a: &[Pair], mut b: &[Pair]) -> bool {
    let decisive = |pair: &Pair| DECISIVE.iter().any(|name| name.as_bytes() == pair.0);
    while let ([first_a, rest_a @ ..], [first_b, rest_b @ ..]) = (a, b) {
        let agree = match first_a.0.cmp(&first_b.0) {
            Ordering::Equal => {
                (a, b) = (rest_a, rest_b);
                first_a.1 == first_b.1
            }
            Ordering::Less => {
                a = rest_a;
                !decisive(first_a)
            }
            Ordering::Greater => {
                b = rest_b;
                !decisive(first_b)
            }
        };
        if !agree {
            return false;
        }
    }
    !a.iter().chain(b).any(decisive)
}

fn folded(text: &str) -> Vec<u8> {
    let mut bytes = exact(text);
    bytes.make_ascii_lowercase();
    bytes
}

/// Without escapes, except that an escaped reserved character stays escaped, since it differs from the bare one.
fn exact(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escape = bytes.get(at..at + 3).filter(|_| *byte == b'%');
        match escape.and_then(|e| hex(&e[1..]).map(|value| (e, value))) {
            Some((_, value)) if is_unreserved(value) => out.push(value),
            Some((escape, _)) => out.extend(escape.iter().map(u8::to_ascii_uppercase)),
            None => {
                out.push(*byte);
                at += 1;
                continue;
            }
        }
        at += 3;
    }
    out
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'_' | b'.' | b'!' | b'~' | b'*' | b'\'' | b'(' | b')')
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
            ("sip:a%2fb@h;n%61me=%41", "sip:a%2Fb@h;name=a"),
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
