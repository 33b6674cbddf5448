//! Building the kernel objects, which no host toolchain does by itself.
//!
//! Two ways, tried in this order: Debian's packages (a rustc with a prebuilt `core` for the BPF target, no nightly),
//! and a rustup nightly with `rust-src`. Where neither is there, Debian as root gets the packages; elsewhere the
//! commands are printed. Either way the bitcode is linked by a bpf-linker built against the LLVM that the compiler
//! speaks: another major version cannot read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, find, run, say, target_dir};
use crate::setup::{self, HostCannot};

const TARGET: &str = "bpfel-unknown-none";
const LINKER_VERSION: &str = "0.13.0";
const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";
const DEBIAN_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// What the rustup cargo that runs us has set for its own children, and what would change how the objects come out.
const FOREIGN: [&str; 9] = [
    "CARGO",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// The kernel objects.
#[derive(Debug)]
pub(crate) struct Objects {
    /// The XDP program.
    pub(crate) sbc: PathBuf,
    /// The program that traces. The build of the daemon looks for it beside the other.
    pub(crate) trace: PathBuf,
    /// Programs that only benches load.
    pub(crate) bench: PathBuf,
    /// The program that steers datagrams to the relay. Whoever embeds `sbc` finds it beside that.
    pub(crate) steer: PathBuf,
}

/// Builds the objects, getting what is missing first.
pub(crate) fn build() -> Result<Objects> {
    let toolchain = Toolchain::find_or_install()?;
    let linker = linker(toolchain.llvm_major()?)?;
    say(&format!("kernel objects with {}", toolchain.name()));
    let dir = target_dir().join("bpf");
    let mut build = toolchain.cargo();
    build
        .args(["build", "--quiet", "--package", "sbc-ebpf", "--bins", "--profile", "bpf", "--target", TARGET])
        .current_dir(crate::run::root())
        .env("CARGO_TARGET_DIR", &dir)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker)
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS",
            format!("-C debuginfo=2 -C link-arg=--btf --cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        );
    run(&mut build)?;
    let built = dir.join(TARGET).join("bpf");
    Ok(Objects {
        sbc: publish(&built.join("sbc"), &dir.join("sbc.o"))?,
        trace: publish(&built.join("trace"), &dir.join("trace.o"))?,
        bench: publish(&built.join("bench"), &dir.join("bench.o"))?,
        steer: publish(&built.join("steer"), &dir.join("steer.o"))?,
    })
}

/// Lints what the kernel gets, for its own target; the rest of the kernel crate is linted on the host.
pub(crate) fn lint() -> Result<()> {
    let toolchain = Toolchain::find().ok_or_else(|| HostCannot("no compiler for the BPF target".into()))?;
    if matches!(toolchain, Toolchain::Debian) && !Path::new(DEBIAN_CLIPPY).exists() {
        say("missing: clippy for the BPF target");
        setup::install(&["rust-web-clippy"])?;
    }
    let mut clippy = match toolchain {
        // By its path: asked for a subcommand, cargo would find a rustup proxy first.
        Toolchain::Debian => {
            let mut command = clean(DEBIAN_CLIPPY);
            command.env("CARGO", "/usr/bin/cargo").env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            command
        }
        Toolchain::Nightly => toolchain.cargo(),
    };
    clippy
        .args([
            "clippy",
            "--quiet",
            "--package",
            "sbc-ebpf",
            "--bins",
            "--profile",
            "bpf",
            "--target",
            TARGET,
        ])
        .args(["--", "--deny", "warnings"])
        .current_dir(crate::run::root())
        .env("CARGO_TARGET_DIR", target_dir().join("bpf"));
    run(&mut clippy)
}

/// Puts an object where others look for it, unless the same is there: its time of change starts rebuilds.
fn publish(from: &Path, to: &Path) -> Result<PathBuf> {
    let object = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).ok().as_ref() != Some(&object) {
        let new = to.with_extension("new");
        fs::write(&new, object).with_context(|| format!("cannot write {}", new.display()))?;
        fs::rename(&new, to).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(to.to_path_buf())
}

/// A compiler that can emit BPF.
enum Toolchain {
    /// Debian's packages, which live beside a rustup toolchain and are called by path.
    Debian,
    /// A rustup nightly that builds `core` itself.
    Nightly,
}

impl Toolchain {
    fn find_or_install() -> Result<Self> {
        if let Some(found) = Self::find() {
            return Ok(found);
        }
        say("missing: a compiler for the BPF target");
        if find("apt-get").is_some() && sbc_tests::is_root() {
            setup::install(&DEBIAN_PACKAGES)?;
        }
        Self::find().ok_or_else(|| {
            let packages = DEBIAN_PACKAGES.join(" ");
            HostCannot(format!(
                "no compiler for the BPF target. On Debian, as root: apt-get install {packages}. \
                 Elsewhere: rustup toolchain install nightly --component rust-src"
            ))
            .into()
        })
    }

    fn find() -> Option<Self> {
        [Self::Debian, Self::Nightly].into_iter().find(|toolchain| toolchain.has_core().unwrap_or(false))
    }

    /// Whether `core` for the target is there, prebuilt or as source.
    fn has_core(&self) -> Result<bool> {
        match self {
            Self::Debian => {
                let dir = output(self.rustc().args(["--print", "target-libdir", "--target", TARGET]))?;
                let entries = fs::read_dir(dir.trim())?;
                Ok(entries
                    .filter_map(Result::ok)
                    .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-")))
            }
            Self::Nightly => {
                let sysroot = output(self.rustc().args(["--print", "sysroot"]))?;
                Ok(Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir())
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Debian => "Debian's /usr/bin/rustc",
            Self::Nightly => "the rustup nightly",
        }
    }

    fn rustc(&self) -> Command {
        match self {
            Self::Debian => clean("/usr/bin/rustc"),
            Self::Nightly => nightly("rustc"),
        }
    }

    fn cargo(&self) -> Command {
        match self {
            Self::Debian => {
                let mut command = clean("/usr/bin/cargo");
                // aya-ebpf uses inline assembly of the BPF machine, which is not stable.
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Self::Nightly => {
                let mut command = nightly("cargo");
                command.env("CARGO_UNSTABLE_BUILD_STD", "core");
                command
            }
        }
    }

    /// The major version of the compiler's LLVM.
    fn llvm_major(&self) -> Result<u32> {
        let version = output(self.rustc().arg("-vV"))?;
        let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let major = line.and_then(|line| line.split('.').next()?.parse().ok());
        major.with_context(|| format!("{} does not say which LLVM it has", self.name()))
    }
}

/// The linker for an LLVM, built once into the target folder.
fn linker(llvm: u32) -> Result<PathBuf> {
    let tools = target_dir().join("tools").join(format!("llvm-{llvm}"));
    let linker = tools.join("bin/bpf-linker");
    if linker.is_file() {
        return Ok(linker);
    }
    say(&format!("missing: bpf-linker for LLVM {llvm}"));
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{llvm}"));
    // LLVM's own libraries, polly among them, and what links a C program.
    if ["bin/llvm-config", "bin/clang", "lib/libPolly.a"].iter().any(|file| !prefix.join(file).exists()) {
        let packages = [
            format!("llvm-{llvm}-dev"),
            format!("libpolly-{llvm}-dev"),
            format!("clang-{llvm}"),
            "zlib1g-dev".into(),
        ];
        setup::install(&packages.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(prefix.join("bin")).chain(std::env::split_paths(&path));
    let feature = format!("llvm-{llvm}");
    let scratch = target_dir().join("tools/build");
    let mut install = cargo(&["install", "--quiet", "--locked", "bpf-linker", "--version", LINKER_VERSION]);
    install
        .args(["--no-default-features", "--features", &feature, "--root"])
        .arg(&tools)
        .env("PATH", std::env::join_paths(paths)?)
        .env("LLVM_PREFIX", &prefix)
        .env("RUSTFLAGS", format!("-L {}", prefix.join("lib").display()))
        .env("CARGO_TARGET_DIR", &scratch);
    run(&mut install)?;
    // Built once: what it was made from is no use any more.
    fs::remove_dir_all(&scratch).ok();
    Ok(linker)
}

/// A program that sees nothing of the cargo that runs us.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in FOREIGN {
        command.env_remove(name);
    }
    command
}

fn nightly(program: &str) -> Command {
    let mut command = clean("rustup");
    command.args(["run", "nightly", program]);
    command
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", crate::run::shown(command)))?;
    if !output.status.success() {
        bail!("{}: {}", crate::run::shown(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}
