//! Whether a text names something: a host, an address, a tag. Decides only that; who must not be named is for others.

/// Whether `word` stands in `text` as a word of its own. Both are in lower case.
#[must_use]
pub(crate) fn mentions(text: &[u8], word: &[u8]) -> bool {
    memchr::memmem::find_iter(text, word).any(|at| {
        let before = at.checked_sub(1).and_then(|at| text.get(at));
        let after = text.get(at + word.len());
        !before.is_some_and(u8::is_ascii_alphanumeric) && !after.is_some_and(u8::is_ascii_alphanumeric)
    })
}
