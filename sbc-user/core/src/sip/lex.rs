//! Character classes and the few scanners that every header shares (RFC 3261 s.25.1).
//!
//! All work on unfolded values: line ends are gone, white space is space or tab.

use memchr::{memchr, memchr2, memchr3};

const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-.!%*_+`'~";
    let mut i = 0;
    while i < marks.len() {
        table[marks[i] as usize] = true;
        i += 1;
    }
    table
};

/// A character of a `token`.
pub(crate) const fn is_token_byte(byte: u8) -> bool {
    TOKEN[byte as usize]
}

/// A whole, non-empty `token`.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|b| is_token_byte(*b))
}

/// Space or tab.
pub(crate) const fn is_ws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Without white space at either end.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_ws(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_ws(*last)
    {
        text = rest;
    }
    text
}

/// Index of the first byte at or after `at` that is not white space.
pub(crate) fn skip_ws(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|b| is_ws(*b)) {
        at += 1;
    }
    at
}

/// Index of the first byte at or after `at` that does not belong to a token.
pub(crate) fn skip_token(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(|b| is_token_byte(*b)) {
        at += 1;
    }
    at
}

/// The index behind the quoted string that opens at `open`; `None` if it never closes.
pub(crate) fn quoted_end(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open + 1;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2; // a quoted pair: whatever follows the backslash is content
    }
}

/// The text as UTF-8, trusted to be so where it was already checked to be ASCII.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Why a number is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberError {
    /// Not one or more digits.
    NotDigits,
    /// Larger than the type; every further digit was still a digit.
    Overflow,
}

/// `1*DIGIT`, leading zeros allowed, up to `max`.
pub(crate) fn number(text: &[u8], max: u64) -> Result<u64, NumberError> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(NumberError::NotDigits);
    }
    text.iter()
        .try_fold(0_u64, |n, digit| n.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|n| *n <= max)
        .ok_or(NumberError::Overflow)
}

/// The values of a comma-separated list, white space trimmed, empty ones left out. Commas inside quoted strings and
/// angle brackets do not separate; what never closes belongs to the last value.
#[derive(Clone, Debug)]
pub(crate) struct CommaList<'a> {
    rest: &'a [u8],
}

impl<'a> CommaList<'a> {
    pub(crate) const fn new(value: &'a [u8]) -> Self {
        Self { rest: value }
    }

    /// Index of the next separating comma, or the end.
    fn separator(&self) -> usize {
        let mut at = 0;
        while let Some(found) = self.rest.get(at..).and_then(|tail| memchr3(b',', b'"', b'<', tail)) {
            at += found;
            at = match self.rest[at] {
                b',' => return at,
                b'"' => match quoted_end(self.rest, at) {
                    Some(end) => end,
                    None => break,
                },
                _ => match memchr(b'>', &self.rest[at..]) {
                    Some(close) => at + close + 1,
                    None => break,
                },
            };
        }
        self.rest.len()
    }
}

impl<'a> Iterator for CommaList<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let end = self.separator();
            let value = trim(&self.rest[..end]);
            self.rest = self.rest.get(end + 1..).unwrap_or_default();
            if !value.is_empty() {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(list: &str) -> Vec<&str> {
        CommaList::new(list.as_bytes()).map(|v| std::str::from_utf8(v).unwrap()).collect()
    }

    #[test]
    fn commas_separate_only_outside_of_quotes_and_brackets() {
        assert_eq!(split("a, b ,,c"), ["a", "b", "c"]);
        assert_eq!(
            split(r#""x, \", y" <sip:a,b@h>;q=1,<sip:c>"#),
            [r#""x, \", y" <sip:a,b@h>;q=1"#, "<sip:c>"]
        );
        assert_eq!(split(r#"a, "never closed, b"#), ["a", r#""never closed, b"#]);
        assert_eq!(split("a, <never closed, b"), ["a", "<never closed, b"]);
        assert_eq!(split(" , ,"), [""; 0]);
    }

    #[test]
    fn numbers_are_digits_and_bounded() {
        assert_eq!(number(b"0070", 255), Ok(70));
        assert_eq!(number(b"256", 255), Err(NumberError::Overflow));
        assert_eq!(number(b"36893488147419103232", u64::MAX), Err(NumberError::Overflow));
        for bad in ["", "-1", "+1", "1 2", "0x1"] {
            assert_eq!(number(bad.as_bytes(), 255), Err(NumberError::NotDigits), "{bad}");
        }
    }

    #[test]
    fn quoted_pairs_do_not_close_a_string() {
        assert_eq!(quoted_end(br#""a\"b" c"#, 0), Some(6));
        assert_eq!(quoted_end(br#""a\"#, 0), None);
        assert_eq!(quoted_end(b"\"", 0), None);
    }
}
