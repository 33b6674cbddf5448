//! The packet tables on the oldest supported kernel, in a virtual machine.
//!
//! Debian's kernel and a static busybox are downloaded, not installed; the test binary of `prog_run`, the libraries that
//! it loads and the kernel object become an initramfs; QEMU emulates, so that it works inside of another virtual machine
//! too. Verifiers differ between kernels: what the newest takes, an older one may refuse.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build_ebpf;
use crate::run::{cargo, find, run, say, shown, target_dir};
use crate::setup::{self, HostCannot};

/// The kernel series that the downloaded package must be of.
const SERIES: &str = "6.1.";
/// Emulation is some fifty times slower than the machine; a run takes two minutes.
const TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// The init script says with this how the tests ended.
const ENDED: &str = "sbc-vm: tests ended with ";

const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox ip link set lo up
echo "sbc-vm: Linux $(/bin/busybox uname -r)"
SBC_EBPF_OBJECT=/sbc.o /prog_run --test-threads=1 --show-output --skip bpftool
echo "sbc-vm: tests ended with $?"
/bin/busybox poweroff -f
"#;

/// Builds everything, runs the machine, passes its console through.
pub(crate) fn test() -> Result<()> {
    if find("qemu-system-x86_64").is_none() {
        say("missing: qemu-system-x86_64 (a virtual machine; Debian package qemu-system-x86)");
        setup::install(&["qemu-system-x86"])?;
    }
    let dir = target_dir().join("vm");
    fs::create_dir_all(&dir)?;
    let kernel = kernel(&dir)?;
    let busybox = unpack(&dir, "busybox-static", "./bin/busybox", &dir.join("busybox"))?;
    let objects = build_ebpf::build()?;
    let tests = test_binary()?;

    let mut archive = Archive::default();
    for directory in ["bin", "proc", "sys", "dev"] {
        archive.directory(directory);
    }
    archive.file("init", INIT.as_bytes(), 0o755);
    archive.file("bin/busybox", &read(&busybox)?, 0o755);
    archive.file("sbc.o", &read(&objects.sbc)?, 0o644);
    archive.file("steer.o", &read(&objects.steer)?, 0o644);
    archive.file("trace.o", &read(&objects.trace)?, 0o644);
    archive.file("prog_run", &read(&tests)?, 0o755);
    for library in libraries(&tests)? {
        let name = library.strip_prefix("/").unwrap_or(&library);
        let parents: Vec<&Path> =
            name.ancestors().skip(1).filter(|parent| *parent != Path::new("")).collect();
        for parent in parents.iter().rev() {
            archive.directory(&parent.to_string_lossy());
        }
        archive.file(&name.to_string_lossy(), &read(&library)?, 0o755);
    }
    let initrd = dir.join("initrd");
    fs::write(&initrd, archive.finish())?;
    boot(&kernel, &initrd)
}

/// Boots and waits for the verdict.
fn boot(kernel: &Path, initrd: &Path) -> Result<()> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "pc,accel=tcg",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "1024",
        "-nodefaults",
        "-no-reboot",
    ])
    .args(["-display", "none", "-serial", "stdio", "-append", "console=ttyS0 quiet panic=-1", "-kernel"])
    .arg(kernel)
    .arg("-initrd")
    .arg(initrd);
    say(&shown(&qemu));
    let mut child = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot run QEMU")?;
    let stdout = child.stdout.take().context("no standard output")?;
    let console = std::thread::spawn(move || {
        let (mut ended, mut skipped) = (None, false);
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if let Some(code) = line.strip_prefix(ENDED) {
                ended = Some(code.to_owned());
            }
            skipped |= line.starts_with("SKIP: ");
            println!("{line}");
        }
        // Here nothing may be missing: a test that skips itself has not run.
        if skipped { Some("0, but some were skipped".to_owned()) } else { ended }
    });
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > TIMEOUT {
            child.kill()?;
            child.wait()?;
            bail!("the virtual machine did not end within {} minutes", TIMEOUT.as_secs() / 60);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    match console.join().ok().flatten().as_deref() {
        Some("0") => Ok(()),
        Some(code) => bail!("the tests failed in the virtual machine (exit status {code})"),
        None => bail!("the virtual machine ended before the tests did"),
    }
}

/// Debian's kernel image of the series.
fn kernel(dir: &Path) -> Result<PathBuf> {
    let depends = output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
    let prefix = format!("Depends: linux-image-{SERIES}");
    let package = depends.lines().map(str::trim).find(|line| line.starts_with(&prefix));
    let Some(package) = package.and_then(|line| line.strip_prefix("Depends: ")) else {
        bail!(HostCannot(format!(
            "the package lists of this host have no linux-image-amd64 of the {SERIES}x series; they do on Debian 12 \
             after: apt-get update"
        )));
    };
    let version = package.strip_prefix("linux-image-").unwrap_or(package);
    unpack(dir, package, &format!("./boot/vmlinuz-{version}"), &dir.join(format!("vmlinuz-{version}")))
}

/// One file of a Debian package, downloaded once and not installed.
fn unpack(dir: &Path, package: &str, member: &str, to: &Path) -> Result<PathBuf> {
    if to.is_file() {
        return Ok(to.to_path_buf());
    }
    let downloads = dir.join("download");
    fs::create_dir_all(&downloads)?;
    say(&format!("apt-get download {package}"));
    let mut download = Command::new("apt-get");
    download.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package]).current_dir(&downloads);
    run(&mut download)?;
    let start = OsString::from(format!("{package}_"));
    let archive = fs::read_dir(&downloads)?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&*start.to_string_lossy()))
        })
        .with_context(|| format!("apt-get download {package} left no file"))?;
    let mut packed = Command::new("dpkg-deb");
    let mut packed = packed.arg("--fsys-tarfile").arg(&archive).stdout(Stdio::piped()).spawn()?;
    let stream = packed.stdout.take().context("no standard output")?;
    let content = Command::new("tar").args(["-x", "-O", member]).stdin(stream).output()?;
    packed.wait()?;
    if !content.status.success() || content.stdout.is_empty() {
        bail!("{} holds no {member}", archive.display());
    }
    fs::write(to, content.stdout)?;
    fs::remove_dir_all(downloads)?;
    Ok(to.to_path_buf())
}

/// The test binary.
fn test_binary() -> Result<PathBuf> {
    let mut build = cargo(&["test", "--quiet", "--package", "sbc-tests", "--test", "prog_run", "--no-run"]);
    let messages = output(build.arg("--message-format=json").stderr(Stdio::inherit()))?;
    let mut executable = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_ours = message.get("target")?.get("name")? == "prog_run";
        let path = message.get("executable")?.as_str()?;
        is_ours.then(|| PathBuf::from(path))
    });
    executable.next_back().context("cargo built no test binary")
}

/// The shared libraries that a program loads, its loader among them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let listed = output(Command::new("ldd").arg(program))?;
    Ok(listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot run {}", shown(command)))?;
    if !output.status.success() {
        bail!("{}: {}", shown(command), output.status);
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// An initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, &[], 0o040_755);
    }

    fn file(&mut self, name: &str, content: &[u8], permissions: u32) {
        self.entry(name, content, 0o100_000 | permissions);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", &[], 0);
        self.bytes
    }

    fn entry(&mut self, name: &str, content: &[u8], mode: u32) {
        self.entries += 1;
        let name_bytes = name.len() as u32 + 1;
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name, no checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name_bytes, 0]
            .map(|n| format!("{n:08x}"));
        self.bytes.extend(format!("070701{}{name}\0", fields.concat()).into_bytes());
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_entries_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::default();
        archive.directory("bin");
        archive.file("bin/x", b"12345", 0o755);
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        // 110 bytes of header, "bin" and its zero, padded to 116.
        assert!(text.starts_with("07070100000001000041ed"));
        assert_eq!(&text[116..122], "070701");
        assert_eq!(&text[116 + 54..116 + 62], "00000005");
        // 116 + 110 + 6 = 232 is aligned; 5 bytes of content end at 237, padded to 240.
        assert_eq!(&text[232..240], "12345\0\0\0");
        assert!(text[240..].contains("TRAILER!!!") && bytes.len().is_multiple_of(4));
    }
}
