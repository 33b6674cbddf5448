//! Header parameters: `*( ; name [ = value ] )` behind a value. Order, case, spaces and unknown ones are kept.

use crate::sip::lex;

/// The parameters of one header value. Checked once when made, walked on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params<'a> {
    raw: &'a [u8],
}

impl<'a> Params<'a> {
    /// The parameters that are all of `raw` (starting with `;` or empty); `None` if the grammar is broken.
    pub(crate) fn parse(raw: &'a [u8]) -> Option<Self> {
        let mut at = lex::skip_ws(raw, 0);
        let mut walk = Walk { raw, at };
        while at < raw.len() {
            walk.step()?;
            at = walk.at;
        }
        Some(Self { raw: lex::trim(raw) })
    }

    /// As written, with the leading `;`.
    #[must_use]
    pub const fn raw(self) -> &'a [u8] {
        self.raw
    }

    /// Name and value of each, in order; `None` where there is no `=`. Quoted values keep their quotes.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let mut walk = Walk { raw: self.raw, at: 0 };
        std::iter::from_fn(move || walk.step())
    }

    /// The value of the first parameter of that name (case ignored); empty for a parameter without value.
    #[must_use]
    pub fn bytes(self, name: &str) -> Option<&'a [u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.unwrap_or_default())
    }

    /// The same as text; `None` also for bytes that are not UTF-8.
    #[must_use]
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.bytes(name).and_then(lex::text)
    }

    /// Whether there is a parameter of that name.
    #[must_use]
    pub fn contains(self, name: &str) -> bool {
        self.bytes(name).is_some()
    }
}

#[derive(Clone, Copy)]
struct Walk<'a> {
    raw: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    /// The parameter at `at`; `None` at the end and where the grammar is broken (`at` then stays before the end).
    fn step(&mut self) -> Option<(&'a str, Option<&'a [u8]>)> {
        let raw = self.raw;
        if raw.get(lex::skip_ws(raw, self.at)) != Some(&b';') {
            return None;
        }
        let start = lex::skip_ws(raw, lex::skip_ws(raw, self.at) + 1);
        let end = lex::skip_token(raw, start);
        if start == end {
            return None;
        }
        let name = lex::text(&raw[start..end])?;
        let after = lex::skip_ws(raw, end);
        if raw.get(after) != Some(&b'=') {
            self.at = after;
            return Some((name, None));
        }
        let start = lex::skip_ws(raw, after + 1);
        let end = match raw.get(start) {
            Some(b'"') => lex::quoted_end(raw, start)?,
            _ => skip_plain(raw, start),
        };
        self.at = lex::skip_ws(raw, end);
        Some((name, Some(&raw[start..end])))
    }
}

/// The end of an unquoted value. Wider than the grammar's `token / host`: tags and unknown parameters in the field
/// hold `@`, `:`, `=` and UTF-8; only what would change the structure ends a value.
fn skip_plain(raw: &[u8], mut at: usize) -> usize {
    while raw.get(at).is_some_and(|b| !matches!(b, 0..=b' ' | 0x7f | b';' | b',' | b'"' | b'<' | b'>')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_in_order_with_spaces_and_quotes() {
        let params = Params::parse(b" ; tag = 88 ;x;q=\"a;b\";received=[2001:db8::1];e=").unwrap();
        let all: Vec<_> = params.iter().collect();
        assert_eq!(
            all,
            [
                ("tag", Some(&b"88"[..])),
                ("x", None),
                ("q", Some(b"\"a;b\"")),
                ("received", Some(b"[2001:db8::1]")),
                ("e", Some(b"")),
            ]
        );
        assert_eq!(params.text("TAG"), Some("88"));
        assert_eq!(params.bytes("x"), Some(&b""[..]));
        assert_eq!(params.bytes("nope"), None);
    }

    #[test]
    fn broken_ones_are_refused() {
        for bad in [";;", ";", "; ;a", "a=1", ";a=\"open", ";a b", ";a=1,b", ";=1", ";a=<b>"] {
            assert!(Params::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(Params::parse(b"  "), Some(Params { raw: b"" }));
    }
}
