//! The dependency rule of ARCHITECTURE.md, checked mechanically: which room may name which, and which crates a package
//! may stand on. Tests (`#[cfg(test)] mod … {`, or a file `tests.rs`) are exempt; everything else that names a path
//! counts, `use` or not.

mod paths;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::{cargo, root};
use paths::NamedPath;

/// Files under `root` and what no path in them may begin with.
struct Room {
    /// Folder or file, without `.rs`, from the repository's root: `x/sip` is `x/sip.rs` and everything under `x/sip/`.
    place: &'static str,
    /// Rooms under `place` to which this rule does not apply.
    except: &'static [&'static str],
    /// Beginnings of paths, as seen from inside the crate (`crate::`, other crates by name).
    never: &'static [&'static str],
    /// Exceptions: names that are handles, not insides.
    but: &'static [&'static str],
}

const CORE: &str = "sbc-user/core/src";

/// The table of ARCHITECTURE.md ("Who may use whom"), room by room.
const ROOMS: &[Room] = &[
    // The engine is sans-IO.
    Room {
        place: CORE,
        except: &[],
        never: &[
            "tokio",
            "aya",
            "rustls",
            "axum",
            "serde",
            "serde_json",
            "socket2",
            "nix",
            "libc",
            "rand",
            "sbc_common",
            "sbc_user",
            "std::fs",
            "std::process",
            "std::env",
            "std::thread",
            "std::sync::mpsc",
            "std::sync::Mutex",
            "std::io::Read",
            "std::io::stdin",
            "std::io::stdout",
            "std::io::stderr",
            "std::os",
            "std::net::UdpSocket",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::ToSocketAddrs",
            "Instant::now",
            "SystemTime::now",
            "std::time::Instant::now",
            "std::time::SystemTime::now",
        ],
        but: &[],
    },
    Room {
        place: "sbc-user/core/src/sip",
        except: &[],
        never: &[
            "crate::sdp",
            "crate::txn",
            "crate::dialog",
            "crate::call",
            "crate::media",
            "crate::policy",
            "crate::engine",
            "crate::input",
            "crate::output",
            "crate::Input",
            "crate::Output",
        ],
        but: &[],
    },
    Room {
        place: "sbc-user/core/src/sdp",
        except: &[],
        never: &[
            "crate::sip",
            "crate::txn",
            "crate::dialog",
            "crate::call",
            "crate::media",
            "crate::policy",
            "crate::engine",
            "crate::input",
            "crate::output",
            "crate::Input",
            "crate::Output",
        ],
        but: &[],
    },
    Room {
        place: "sbc-user/core/src/txn",
        except: &[],
        never: &[
            "crate::dialog",
            "crate::sdp",
            "crate::call",
            "crate::media",
            "crate::policy",
            "crate::engine",
        ],
        but: &[],
    },
    Room {
        place: "sbc-user/core/src/dialog",
        except: &[],
        never: &["crate::txn", "crate::sdp", "crate::call", "crate::media", "crate::policy", "crate::engine"],
        but: &[],
    },
    Room {
        place: "sbc-user/core/src/call",
        except: &[],
        never: &["crate::engine", "crate::txn"],
        but: &["crate::txn::ClientTxnId", "crate::txn::ServerTxnId"],
    },
    Room {
        place: "sbc-user/core/src/media",
        except: &[],
        never: &["crate::sip", "crate::sdp", "crate::txn", "crate::dialog", "crate::call", "crate::engine"],
        but: &[],
    },
    Room {
        place: "sbc-user/core/src/policy",
        except: &[],
        never: &["crate::txn", "crate::dialog", "crate::engine"],
        but: &[],
    },
    // The shell.
    Room {
        place: "sbc-user/src",
        except: &["sbc-user/src/dataplane/xdp"],
        never: &["aya", "aya_log"],
        but: &[],
    },
    Room {
        place: "sbc-user/src",
        except: &["sbc-user/src/app", "sbc-user/src/eventloop"],
        never: &["crate::eventloop", "sbc_user::eventloop"],
        but: &[],
    },
    Room {
        place: "sbc-user/src/transport",
        except: &[],
        never: &[
            "crate::dataplane",
            "crate::planes",
            "crate::admin",
            "crate::cli",
            "crate::app",
            "sbc_core::call",
            "sbc_core::dialog",
            "sbc_core::txn",
            "sbc_core::sdp",
            "sbc_core::policy",
            "sbc_core::engine",
        ],
        but: &[],
    },
    Room {
        place: "sbc-user/src/dataplane",
        except: &[],
        never: &[
            "crate::transport",
            "crate::admin",
            "crate::cli",
            "crate::app",
            "sbc_core::sip",
            "sbc_core::sdp",
            "sbc_core::txn",
            "sbc_core::dialog",
            "sbc_core::call",
            "sbc_core::policy",
            "sbc_core::engine",
        ],
        but: &[],
    },
    Room {
        place: "sbc-user/src/doctor",
        except: &[],
        never: &[
            "crate::transport",
            "crate::admin",
            "crate::cli",
            "crate::app",
            "sbc_core::engine",
            "sbc_core::call",
        ],
        but: &[],
    },
    Room {
        place: "sbc-user/src/admin",
        except: &[],
        never: &[
            "crate::dataplane",
            "crate::transport",
            "crate::app",
            "sbc_common",
            "sbc_core::engine",
            "sbc_core::txn",
            "sbc_core::dialog",
            "sbc_core::call",
            "sbc_core::sip",
            "sbc_core::sdp",
        ],
        but: &[],
    },
    Room {
        place: "sbc-user/src/cli",
        except: &[],
        never: &[
            "crate::dataplane",
            "crate::transport",
            "crate::app",
            "sbc_common",
            "sbc_core::engine",
            "sbc_core::txn",
            "sbc_core::dialog",
            "sbc_core::call",
            "sbc_core::sip",
            "sbc_core::sdp",
        ],
        but: &[],
    },
    // What the kernel and the host share.
    Room {
        place: "sbc-common/src",
        except: &[],
        never: &["std", "alloc", "serde", "sbc_core", "sbc_user"],
        but: &[],
    },
    Room {
        place: "sbc-ebpf/src",
        except: &[],
        never: &["std", "alloc", "serde", "sbc_core", "sbc_user"],
        but: &[],
    },
];

/// A package, and the only crates that it may name in its manifest (development dependencies aside).
const DIRECT: &[(&str, &[&str])] = &[
    ("sbc-common", &["aya"]),
    ("sbc-ebpf", &["aya-ebpf", "aya-log-ebpf", "network-types", "sbc-common"]),
    ("sbc-core", &["bytes", "memchr", "sdp-types", "smallvec", "thiserror", "tracing"]),
];

/// Crates that must not be anywhere below a package, however they come in.
const NEVER_BELOW: &[(&str, &[&str])] = &[
    ("sbc-common", &["serde", "std", "aya"]),
    (
        "sbc-core",
        &[
            "async-std",
            "aya",
            "axum",
            "getrandom",
            "hyper",
            "libc",
            "mio",
            "nix",
            "rand",
            "rustls",
            "sbc-common",
            "serde",
            "socket2",
            "tokio",
        ],
    ),
];

/// Checks everything and names each violation.
pub(crate) fn run() -> Result<()> {
    let root = root();
    let mut violations = Vec::new();
    for package in ["sbc-common", "sbc-ebpf", "sbc-user", "tests", "bench", "xtask"] {
        for file in sources(&root.join(package))? {
            let text =
                std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let file = file.strip_prefix(&root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
            violations.extend(in_file(&file, &text));
        }
    }
    for (package, allowed) in DIRECT {
        let direct = tree(package, 1)?;
        violations.extend(not_allowed(package, &direct, allowed));
    }
    for (package, never) in NEVER_BELOW {
        let below = tree(package, 255)?;
        violations.extend(
            below
                .iter()
                .filter(|name| never.contains(&name.as_str()))
                .map(|name| format!("{package} stands on {name}")),
        );
    }
    if !violations.is_empty() {
        bail!("{} violations:\n  {}", violations.len(), violations.join("\n  "));
    }
    Ok(())
}

/// What one file breaks.
fn in_file(file: &str, text: &str) -> Vec<String> {
    let mut violations = Vec::new();
    if file.ends_with("/tests.rs") {
        return violations;
    }
    if !text.starts_with("//!") {
        violations.push(format!("{file}:1: does not start with `//!`: what it decides, what it does not"));
    }
    let rooms: Vec<&Room> = ROOMS
        .iter()
        .filter(|room| within(file, room.place) && !room.except.iter().any(|place| within(file, place)))
        .collect();
    if rooms.is_empty() {
        return violations;
    }
    for NamedPath { line, path } in paths::named(text, &module_of(file)) {
        for room in &rooms {
            let allowed = room.but.iter().any(|but| begins_with(&path, but));
            if let Some(rule) = room.never.iter().find(|never| !allowed && begins_with(&path, never)) {
                violations.push(format!("{file}:{line}: `{path}`: {} must not use `{rule}`", room.place));
            }
        }
    }
    violations
}

fn within(file: &str, place: &str) -> bool {
    file.strip_prefix(place).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

fn begins_with(path: &str, beginning: &str) -> bool {
    path.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module that a file is: `…/src/sip/frame.rs` is `["sip", "frame"]`.
fn module_of(file: &str) -> Vec<String> {
    let inside = file.rsplit_once("/src/").map_or("", |(_, inside)| inside);
    let mut module: Vec<String> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("lib" | "main" | "mod")) {
        module.pop();
    }
    module
}

fn not_allowed(package: &str, direct: &[String], allowed: &[&str]) -> Vec<String> {
    let stray = direct.iter().filter(|name| !allowed.contains(&name.as_str()));
    stray
        .map(|name| format!("{package}'s manifest names {name}, which is not among {}", allowed.join(", ")))
        .collect()
}

/// The crates below a package down to `depth`, without development dependencies.
fn tree(package: &str, depth: u8) -> Result<Vec<String>> {
    let depth = depth.to_string();
    let mut command = cargo(&["tree", "--package", package, "--edges", "normal,build", "--prefix", "none"]);
    let output =
        command.args(["--format", "{p}", "--depth", &depth]).output().context("cannot run cargo tree")?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let names = text.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty());
    let mut names: Vec<String> = names.filter(|name| *name != package).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Every Rust file under a folder, build output and fuzz workspaces aside.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(file: &str, code: &str) -> bool {
        !in_file(file, &format!("//! A file.\n{code}\n")).is_empty()
    }

    #[test]
    fn a_forbidden_edge_is_found_however_it_is_written() {
        let sip = "sbc-user/core/src/sip/frame.rs";
        for code in [
            "use crate::sdp::Session;",
            "use crate::{id::CallId, sdp::{model, parse}};",
            "use crate::{\n    id,\n    sdp,\n};",
            "use super::super::sdp;",
            "pub use crate :: sdp as other;",
            "fn f() { let x = crate::sdp::parse(b\"\"); }",
            "fn f(call: &crate::call::Call) {}",
            "use std::{fs, fmt};",
            "fn f() -> std::time::Instant { Instant::now() }",
            "use tokio::net::UdpSocket;",
            "use ::serde::Serialize;",
            "#[derive(serde::Serialize)] struct A;",
        ] {
            assert!(broken(sip, code), "not found: {code}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_reported() {
        let sip = "sbc-user/core/src/sip/frame.rs";
        for code in [
            "use crate::id::CallId;",
            "use super::message::Message;",
            "use std::{fmt, net::IpAddr, time::Instant};",
            "// use crate::sdp::Session;",
            "/* crate::sdp */ /* nested /* crate::call */ */",
            "const A: &str = \"crate::sdp::x\"; const B: &str = r#\"crate::\"sdp\"#; const C: char = '\"';",
            "struct Sdp; fn sdp(sdp: Sdp) { sdp.crate_sdp() }",
            "use crate::sdpx::A;",
            "#[cfg(test)]\nmod tests { use crate::sdp::Session; use std::fs; }",
        ] {
            assert!(!broken(sip, code), "reported: {code}");
        }
        assert!(!broken(
            "sbc-user/core/src/call/leg.rs",
            "use crate::sdp::Session; use crate::dialog::Dialog;"
        ));
        assert!(!broken("sbc-user/core/src/call/leg.rs", "use crate::txn::{ClientTxnId, ServerTxnId};"));
        assert!(!broken("sbc-user/src/dataplane/xdp/load.rs", "use aya::Ebpf;"));
    }

    #[test]
    fn rooms_of_the_shell() {
        for (file, code) in [
            ("sbc-user/src/admin/server.rs", "use aya::Ebpf;"),
            ("sbc-user/src/dataplane/relay.rs", "use aya::Ebpf;"),
            ("sbc-user/src/dataplane.rs", "use sbc_core::sip::Message;"),
            ("sbc-user/src/transport/tls.rs", "use crate::dataplane::Dataplane;"),
            ("sbc-user/src/admin.rs", "use crate::dataplane::xdp;"),
            ("sbc-user/src/bin/sbcd.rs", "use sbc_user::eventloop;"),
            ("sbc-common/src/rtp.rs", "use std::fmt;"),
            ("sbc-user/core/src/dialog/state.rs", "use crate::txn::Key;"),
            ("sbc-user/core/src/call/leg.rs", "use crate::txn::{ClientTxnId, table::Table};"),
        ] {
            assert!(broken(file, code), "{file}: {code}");
        }
    }

    #[test]
    fn a_file_says_what_it_is() {
        assert_eq!(in_file("xtask/src/main.rs", "fn main() {}\n").len(), 1);
        assert!(in_file("xtask/src/main.rs", "//! Main.\nfn main() {}\n").is_empty());
    }

    #[test]
    fn a_stray_dependency_is_named() {
        let direct = ["bytes".to_owned(), "tokio".to_owned()];
        let violations = not_allowed("sbc-core", &direct, &["bytes"]);
        assert_eq!(violations.len(), 1);
        assert!(violations[0].contains("tokio"));
    }
}
