//! `sbcctl reconcile`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use hyper::Method;

use super::{order, print_json, table};
use crate::admin::dto::Reconciled;

pub(super) fn run(socket: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let reconciled: Reconciled = order(socket, Method::POST, "/v1/reconcile")?;
    if json {
        print_json(&reconciled)?;
    } else if reconciled.differences.is_empty() {
        writeln!(io::stdout(), "everything is as it should be")?;
    } else {
        let mut differences = table(&["WHAT", "WHICH", "FOUND", "NOW"]);
        for difference in &reconciled.differences {
            let now = if difference.mended { "as it should be" } else { "STILL WRONG" };
            differences.add_row([difference.object.as_str(), &difference.subject, &difference.found, now]);
        }
        writeln!(io::stdout(), "{}", differences.trim_fmt())?;
    }
    let mended = reconciled.differences.iter().all(|difference| difference.mended);
    Ok(if mended { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
