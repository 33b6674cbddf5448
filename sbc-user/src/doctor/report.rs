//! What the doctor says: findings, each with what was seen, why it matters, and how to mend it.

use std::fmt;

use serde::Serialize;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Looked at, and right.
    Ok,
    /// Worth knowing; nothing needs to be done.
    Note,
    /// It works, but slower, or not as somebody may believe.
    Warning,
    /// Something that is configured does not work.
    Fault,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Fault => "FAULT",
        })
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check: the same word in every version.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The interface, the address or the part of the host that it is about.
    pub subject: String,
    /// What was seen.
    pub what: String,
    /// Why it matters; empty if it is right.
    pub why: String,
    /// What to do: commands as they are to be typed, or a sentence where there is none. Empty if it is right.
    pub mend: Vec<String>,
}

impl Finding {
    /// Something is right.
    pub(crate) fn ok(id: &'static str, subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            id,
            severity: Severity::Ok,
            subject: subject.into(),
            what: what.into(),
            why: String::new(),
            mend: Vec::new(),
        }
    }

    /// Something is not.
    pub(crate) fn bad(
        id: &'static str,
        severity: Severity,
        subject: impl Into<String>,
        what: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self { severity, why: why.into(), ..Self::ok(id, subject, what) }
    }

    /// How to mend it; may be called for each command in turn.
    pub(crate) fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend.push(command.into());
        self
    }
}

/// All findings, in the order in which they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// How many findings are as bad as that.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}
