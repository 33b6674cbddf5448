//! How often this node has started: part of every identifier that it generates, so that none is ever made twice.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::Context as _;

const FILE: &str = "epoch";

/// Counts this start, on disk before it is used.
pub(super) fn next(state_dir: &Path) -> anyhow::Result<u32> {
    fs::create_dir_all(state_dir).with_context(|| format!("state directory {}", state_dir.display()))?;
    let path = state_dir.join(FILE);
    let name = || format!("start count {}", path.display());
    let last: u32 = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().with_context(name)?,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error).with_context(name),
    };
    let epoch = last.checked_add(1).context("the start count is used up").with_context(name)?;
    let written = state_dir.join(format!("{FILE}.new"));
    let write = || {
        let mut file = File::create(&written)?;
        writeln!(file, "{epoch}")?;
        file.sync_all()?;
        fs::rename(&written, &path)
    };
    write().with_context(name)?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_counts_and_a_spoilt_count_is_refused() {
        let directory = std::env::temp_dir().join(format!("sbc-epoch-{}", std::process::id()));
        let counts: Vec<u32> = (0..3).map(|_| next(&directory).unwrap()).collect();
        assert_eq!(counts, [1, 2, 3]);
        fs::write(directory.join(FILE), "spoilt").unwrap();
        let error = next(&directory).expect_err("identifiers could repeat");
        assert!(format!("{error:#}").contains("start count"), "{error:#}");
        fs::remove_dir_all(directory).unwrap();
    }
}
