//! What is wrong with a configuration, and where: collected, located, and shown to a person or to a program.
//!
//! Validation never stops at the first problem; it adds to [`Problems`] and goes on.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably does not do what its author expects.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// Bytes of the file that it is about.
    pub span: Range<usize>,
    /// Dotted path of the key that it is about; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub allowed: Option<String>,
    /// Another place that has to do with it, and how.
    pub related: Option<(Range<usize>, String)>,
}

impl Diagnostic {
    /// An error at `span` about `key`.
    pub fn error(span: Range<usize>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            span,
            key: key.into(),
            message: message.into(),
            allowed: None,
            related: None,
        }
    }

    /// A warning at `span` about `key`.
    pub fn warning(span: Range<usize>, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, key, message) }
    }

    /// Says what would be right.
    #[must_use]
    pub fn allowed(mut self, allowed: impl Into<String>) -> Self {
        self.allowed = Some(allowed.into());
        self
    }

    /// Points at another place.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, how: impl Into<String>) -> Self {
        self.related = Some((span, how.into()));
        self
    }
}

/// The problems found so far. Shared by all readers of one file, therefore behind a cell.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Diagnostic>>);

impl Problems {
    /// Keeps one.
    pub(super) fn add(&self, diagnostic: Diagnostic) {
        self.0.borrow_mut().push(diagnostic);
    }

    /// All of them, in the order of the file.
    pub(super) fn into_sorted(self) -> Vec<Diagnostic> {
        let mut all = self.0.into_inner();
        all.sort_by_key(|diagnostic| (diagnostic.span.start, diagnostic.span.end));
        all
    }
}

/// The problems of one file, with its text, so that they can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The file.
    pub file: PathBuf,
    /// Its text.
    pub source: String,
    /// What was found, in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

impl Report {
    pub(super) fn new(file: &Path, source: &str, diagnostics: Vec<Diagnostic>) -> Self {
        Self { file: file.to_owned(), source: source.to_owned(), diagnostics }
    }

    /// How many of them are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }

    /// Line and column, both from 1, of a byte of the file.
    #[must_use]
    pub fn position(&self, offset: usize) -> (usize, usize) {
        let mut end = offset.min(self.source.len());
        while !self.source.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.source[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// For a person: every problem with the line of the file that it is about.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            out.push_str(&renderer.render(&[self.group(diagnostic)]));
            out.push_str("\n\n");
        }
        out
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = if diagnostic.key.is_empty() {
            diagnostic.message.clone()
        } else {
            format!("{}: {}", diagnostic.key, diagnostic.message)
        };
        let mut snippet = Snippet::source(self.source.as_str())
            .path(self.file.display().to_string())
            .annotation(AnnotationKind::Primary.span(self.visible(&diagnostic.span)));
        if let Some((span, how)) = &diagnostic.related {
            snippet =
                snippet.annotation(AnnotationKind::Context.span(self.visible(span)).label(how.as_str()));
        }
        let mut group = level.primary_title(title).element(snippet);
        if let Some(allowed) = &diagnostic.allowed {
            group = group.element(Level::HELP.message(format!("allowed: {allowed}")));
        }
        group
    }

    /// The first line of `span`, never empty and never past the end: what can be underlined.
    fn visible(&self, span: &Range<usize>) -> Range<usize> {
        let start = span.start.min(self.source.len());
        let line_end = self.source[start..].find('\n').map_or(self.source.len(), |newline| start + newline);
        start..span.end.clamp(start, line_end.max(start))
    }
}

impl fmt::Display for Report {
    /// One line for each problem, in the form that editors and log readers understand:
    /// `file:line:column: error: key: message (allowed: …)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.diagnostics.iter().enumerate() {
            let (line, column) = self.position(diagnostic.span.start);
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{line}:{column}: {}: ", self.file.display(), diagnostic.severity)?;
            if !diagnostic.key.is_empty() {
                write!(f, "{}: ", diagnostic.key)?;
            }
            f.write_str(&diagnostic.message)?;
            if let Some(allowed) = &diagnostic.allowed {
                write!(f, " (allowed: {allowed})")?;
            }
        }
        Ok(())
    }
}
