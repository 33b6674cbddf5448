//! Reading one table of the file key by key: each value typed and located, what was not asked for is an error.
//!
//! Not serde: its derive stops at the first problem, and an operator wants to hear of all of them at once.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{Diagnostic, Problems};

/// A value, the bytes of the file that it came from, and the dotted path of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
    pub(super) key: String,
}

impl<T> At<T> {
    /// An error about this value.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.span.clone(), self.key.clone(), message)
    }

    /// A warning about this value.
    pub(super) fn warning(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::warning(self.span.clone(), self.key.clone(), message)
    }
}

/// Why a text is not a value of its type, and what would be.
pub(super) struct Refusal {
    /// What is wrong with it.
    pub(super) message: String,
    /// What would be right.
    pub(super) allowed: String,
}

/// One table being read.
pub(super) struct TableReader<'a, 'i> {
    table: &'a DeTable<'i>,
    path: String,
    /// Where the table begins: what is missing from it is reported here.
    span: Range<usize>,
    known: BTreeSet<&'static str>,
    problems: &'a Problems,
}

impl<'a, 'i> TableReader<'a, 'i> {
    /// The file's top level.
    pub(super) fn root(table: &'a DeTable<'i>, problems: &'a Problems) -> Self {
        Self { table, path: String::new(), span: 0..0, known: BTreeSet::new(), problems }
    }

    /// The table itself as a located value: for what is missing from it.
    pub(super) fn here(&self) -> At<()> {
        At { value: (), span: self.span.clone(), key: self.path.clone() }
    }

    /// Dotted path of one of its keys.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Whether a key stands in the table, whatever its value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<(Range<usize>, At<&'a DeValue<'i>>)> {
        self.known.insert(key);
        let (name, value) = self.table.get_key_value(key)?;
        Some((name.span(), At { value: value.get_ref(), span: value.span(), key: self.key(key) }))
    }

    fn wrong_type(&self, found: &At<&DeValue<'_>>, allowed: &str) {
        let message = format!("wrong type: {}", found.value.type_str());
        self.problems.add(found.error(message).allowed(allowed));
    }

    /// A string that `parse` accepts.
    pub(super) fn parsed<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<At<T>> {
        let (_, found) = self.take(key)?;
        self.parse_string(found, allowed, &parse)
    }

    /// A list of strings that `parse` accepts, or a single one.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<Vec<At<T>>> {
        let (_, found) = self.take(key)?;
        let Some(array) = found.value.as_array() else {
            return self.parse_string(found, allowed, &parse).map(|one| vec![one]);
        };
        let mut values = Vec::with_capacity(array.len());
        for item in array.iter() {
            let item = At { value: item.get_ref(), span: item.span(), key: found.key.clone() };
            values.extend(self.parse_string(item, allowed, &parse));
        }
        Some(values)
    }

    fn parse_string<T>(
        &self,
        found: At<&DeValue<'_>>,
        allowed: &str,
        parse: &impl Fn(&str) -> Result<T, Refusal>,
    ) -> Option<At<T>> {
        let Some(text) = found.value.as_str() else {
            self.wrong_type(&found, allowed);
            return None;
        };
        match parse(text) {
            Ok(value) => Some(At { value, span: found.span, key: found.key }),
            Err(refusal) => {
                self.problems.add(found.error(refusal.message).allowed(refusal.allowed));
                None
            }
        }
    }

    /// A whole number inside `bounds`.
    pub(super) fn integer(&mut self, key: &'static str, bounds: RangeInclusive<u32>) -> Option<At<u32>> {
        let (_, found) = self.take(key)?;
        let allowed = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let Some(integer) = found.value.as_integer() else {
            self.wrong_type(&found, &allowed);
            return None;
        };
        match i64::from_str_radix(integer.as_str(), integer.radix()).map(u32::try_from) {
            Ok(Ok(value)) if bounds.contains(&value) => Some(At { value, span: found.span, key: found.key }),
            Ok(Ok(_) | Err(_)) | Err(_) => {
                let message = format!("out of bounds: {}", integer.as_str());
                self.problems.add(found.error(message).allowed(allowed));
                None
            }
        }
    }

    /// A port number.
    pub(super) fn port(&mut self, key: &'static str) -> Option<At<u16>> {
        let found = self.integer(key, 1..=u32::from(u16::MAX))?;
        let value = u16::try_from(found.value).ok()?;
        Some(At { value, span: found.span, key: found.key })
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<At<bool>> {
        let (_, found) = self.take(key)?;
        let Some(value) = found.value.as_bool() else {
            self.wrong_type(&found, "true or false");
            return None;
        };
        Some(At { value, span: found.span, key: found.key })
    }

    /// A table below this one.
    pub(super) fn table(&mut self, key: &'static str) -> Option<Self> {
        let (name_span, found) = self.take(key)?;
        let Some(table) = found.value.as_table() else {
            self.wrong_type(&found, "a table");
            return None;
        };
        Some(Self {
            table,
            path: found.key,
            span: name_span,
            known: BTreeSet::new(),
            problems: self.problems,
        })
    }

    /// An array of tables below this one (`[[key]]`).
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        let Some((name_span, found)) = self.take(key) else { return Vec::new() };
        let Some(array) = found.value.as_array() else {
            let found = At { span: name_span, ..found };
            self.wrong_type(&found, &format!("an array of tables, each begun with [[{key}]]"));
            return Vec::new();
        };
        let mut readers = Vec::with_capacity(array.len());
        for (index, item) in array.iter().enumerate() {
            let path = format!("{}[{index}]", found.key);
            match item.get_ref().as_table() {
                Some(table) => readers.push(Self {
                    table,
                    path,
                    span: item.span(),
                    known: BTreeSet::new(),
                    problems: self.problems,
                }),
                None => {
                    let item = At { value: item.get_ref(), span: item.span(), key: path };
                    self.wrong_type(&item, "a table");
                }
            }
        }
        readers
    }

    /// Ends the reading: whatever was not asked for is unknown.
    pub(super) fn finish(self) {
        for name in self.table.keys() {
            if self.known.contains(name.get_ref().as_ref()) {
                continue;
            }
            let known: Vec<&str> = self.known.iter().copied().collect();
            let mut error = Diagnostic::error(name.span(), self.key(name.get_ref()), "unknown key");
            error = match nearest(name.get_ref(), &known) {
                Some(near) => error.allowed(format!("did you mean `{near}`? {}", known.join(", "))),
                None => error.allowed(known.join(", ")),
            };
            self.problems.add(error);
        }
    }
}

/// The known key that `name` is most likely a misspelling of.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let (distance, near) = known.iter().map(|known| (edit_distance(name, known), *known)).min()?;
    (distance <= 2 && distance < near.len()).then_some(near)
}

/// Levenshtein's distance.
fn edit_distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.chars().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.chars().count()]
}

/// Parses the whole file; syntax errors are kept as problems, what could be read is returned.
pub(super) fn parse<'i>(source: &'i str, problems: &Problems) -> Spanned<DeTable<'i>> {
    let (table, errors) = DeTable::parse_recoverable(source);
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        problems.add(Diagnostic::error(span, "", format!("syntax error: {}", error.message())));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_proposed_only_when_it_is_near() {
        let known = ["advertised", "bind", "udp"];
        assert_eq!(nearest("bnd", &known), Some("bind"));
        assert_eq!(nearest("advertized", &known), Some("advertised"));
        assert_eq!(nearest("quarantine", &known), None);
    }
}
