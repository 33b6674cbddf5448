//! The paths that a Rust file names: `use` trees and paths in code alike, with `super` and `self` resolved. Not a
//! parser: comments, strings and test modules are cut away, then identifiers joined by `::` are collected.

/// A path and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NamedPath {
    /// Line, from 1.
    pub(super) line: usize,
    /// `crate::sip::frame`, `std::fs::File`, …
    pub(super) path: String,
}

/// All paths that `text`, the file of `module`, names.
pub(super) fn named(text: &str, module: &[String]) -> Vec<NamedPath> {
    let tokens = without_tests(tokens(text));
    let mut found = Vec::new();
    let mut index = 0;
    while index < tokens.len() {
        if matches!(tokens[index].kind, Kind::Word(_)) && !follows_colons(&tokens, index) {
            index = path(&tokens, index, &[], &mut found);
        } else {
            index += 1;
        }
    }
    for named in &mut found {
        named.path = absolute(&named.path, module);
    }
    found
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Word(String),
    Colons,
    Other(char),
}

#[derive(Clone, Debug)]
struct Token {
    line: usize,
    kind: Kind,
}

/// Whether the word at `index` continues a path: `a::b`, but not the `b` of `use ::b`.
fn follows_colons(tokens: &[Token], index: usize) -> bool {
    index >= 2 && tokens[index - 1].kind == Kind::Colons && matches!(tokens[index - 2].kind, Kind::Word(_))
}

/// Reads the path that begins at `index`, with its group if it has one; the index behind it.
fn path(tokens: &[Token], mut index: usize, before: &[String], found: &mut Vec<NamedPath>) -> usize {
    let mut words = before.to_vec();
    let line = tokens[index].line;
    loop {
        match tokens.get(index).map(|token| &token.kind) {
            Some(Kind::Word(word)) => {
                words.push(word.clone());
                index += 1;
            }
            Some(Kind::Other('{')) if !words.is_empty() => {
                return group(tokens, index + 1, &words, found);
            }
            Some(Kind::Other('*')) => {
                index += 1;
                break;
            }
            Some(Kind::Colons | Kind::Other(_)) | None => break,
        }
        if tokens.get(index).is_some_and(|token| token.kind == Kind::Colons) {
            index += 1;
        } else {
            break;
        }
    }
    found.push(NamedPath { line, path: words.join("::") });
    index
}

/// Reads `a, b::{c}, *}`; the index behind the brace.
fn group(tokens: &[Token], mut index: usize, before: &[String], found: &mut Vec<NamedPath>) -> usize {
    while let Some(token) = tokens.get(index) {
        match &token.kind {
            Kind::Word(word) if word == "as" => index += 2,
            Kind::Word(_) => index = path(tokens, index, before, found),
            Kind::Other('}') => return index + 1,
            Kind::Colons | Kind::Other(_) => {
                if token.kind == Kind::Other('*') {
                    found.push(NamedPath { line: token.line, path: before.join("::") });
                }
                index += 1;
            }
        }
    }
    index
}

/// `super::x` and `self::x` as seen from the crate's root.
fn absolute(path: &str, module: &[String]) -> String {
    let mut words = path.split("::").peekable();
    let mut here = module.to_vec();
    let mut relative = false;
    while let Some(word @ ("super" | "self")) = words.peek().copied() {
        if word == "super" {
            here.pop();
        }
        relative = true;
        words.next();
    }
    let rest = words.collect::<Vec<_>>();
    if !relative {
        return path.to_owned();
    }
    std::iter::once("crate").chain(here.iter().map(String::as_str)).chain(rest).collect::<Vec<_>>().join("::")
}

/// Keywords that may stand right before a path that begins with `::`.
const KEYWORDS: [&str; 10] = ["use", "return", "in", "mut", "dyn", "impl", "for", "where", "match", "if"];

/// Words, `::` and single characters; comments, strings and lifetimes dropped.
fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let length = match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => block_comment(rest),
            b'"' => string(rest),
            b'\'' => quote(rest),
            b'r' | b'b' | b'c' if literal_prefix(rest).is_some() => {
                let prefix = literal_prefix(rest).unwrap_or(0);
                prefix
                    + if rest[..prefix].contains('r') {
                        raw_string(&rest[prefix..])
                    } else {
                        string(&rest[prefix..])
                    }
            }
            b':' if rest.starts_with("::") => {
                tokens.push(Token { line, kind: Kind::Colons });
                2
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' => {
                let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
                let word = &rest[..length];
                let kind =
                    if KEYWORDS.contains(&word) { Kind::Other('k') } else { Kind::Word(word.to_owned()) };
                tokens.push(Token { line, kind });
                length
            }
            byte if byte.is_ascii_whitespace() => 1,
            _ => {
                let other = rest.chars().next().unwrap_or(' ');
                tokens.push(Token { line, kind: Kind::Other(other) });
                other.len_utf8()
            }
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

/// Length of `b`, `r`, `br`, `c`, `cr` before a quote, if that is what stands here.
fn literal_prefix(rest: &str) -> Option<usize> {
    ["br", "cr", "r", "b", "c"].into_iter().find_map(|prefix| {
        let behind = rest.strip_prefix(prefix)?;
        let opens = behind.starts_with('"')
            || (prefix.contains('r')
                && behind.starts_with('#')
                && behind.trim_start_matches('#').starts_with('"'));
        opens.then_some(prefix.len())
    })
}

fn string(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    rest.len()
}

fn raw_string(rest: &str) -> usize {
    let hashes = rest.find('"').unwrap_or(0);
    let end = format!("\"{}", "#".repeat(hashes));
    rest[hashes + 1..].find(&end).map_or(rest.len(), |at| hashes + 1 + at + end.len())
}

/// A character literal, or the `'` of a lifetime.
fn quote(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => rest[3..].find('\'').map_or(rest.len(), |at| at + 4),
        Some((_, _)) => chars.next().filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0u32, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Cuts `#[cfg(test)] mod name { … }`.
fn without_tests(tokens: Vec<Token>) -> Vec<Token> {
    let word = |token: Option<&Token>, text: &str| {
        token.is_some_and(|token| token.kind == Kind::Word(text.to_owned()))
    };
    let mut kept = Vec::with_capacity(tokens.len());
    let mut index = 0;
    while index < tokens.len() {
        let attribute = tokens[index].kind == Kind::Other('#')
            && word(tokens.get(index + 2), "cfg")
            && word(tokens.get(index + 4), "test")
            && word(tokens.get(index + 7), "mod")
            && tokens.get(index + 9).is_some_and(|token| token.kind == Kind::Other('{'));
        if attribute {
            index += 10;
            let mut depth = 1u32;
            while depth > 0 && index < tokens.len() {
                match tokens[index].kind {
                    Kind::Other('{') => depth += 1,
                    Kind::Other('}') => depth -= 1,
                    Kind::Word(_) | Kind::Colons | Kind::Other(_) => {}
                }
                index += 1;
            }
        } else {
            kept.push(tokens[index].clone());
            index += 1;
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_lines() {
        let found = named("use a::{b::{c, d as e}, f::*};\n\nx::y();\n", &[]);
        let found: Vec<_> = found.iter().map(|named| (named.line, named.path.as_str())).collect();
        assert_eq!(found, [(1, "a::b::c"), (1, "a::b::d"), (1, "a::f"), (3, "x::y")]);
    }

    #[test]
    fn relative_paths() {
        let module = ["sip".to_owned(), "frame".to_owned()];
        assert_eq!(absolute("super::message::Message", &module), "crate::sip::message::Message");
        assert_eq!(absolute("super::super::sdp", &module), "crate::sdp");
        assert_eq!(absolute("self::inner", &module), "crate::sip::frame::inner");
    }
}
