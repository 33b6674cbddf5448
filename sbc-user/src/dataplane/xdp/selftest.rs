//! Unfinished checksums: the one fault of a network that makes XDP forward packets which nobody can use.
//!
//! A sender on the same machine (a container, a virtual machine, the other end of a veth) may leave a datagram's
//! checksum to its network card. XDP sees the frame before any card does, and has no way to tell such a checksum from
//! a wrong one; updated incrementally it stays wrong, and the receiver drops the packet without a word. The program
//! verifies the first packet of flows and a sample of the others; here its count is watched.

use std::time::{Duration, Instant};

/// How often the count is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

/// Watches the count of wrong checksums.
#[derive(Debug)]
pub(crate) struct ChecksumWatch {
    next: Instant,
    seen: u64,
}

impl ChecksumWatch {
    /// `counted`: what an earlier daemon's packets left in the counter.
    pub(crate) fn new(now: Instant, counted: u64) -> Self {
        Self { next: now + INTERVAL, seen: counted }
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// The warning, if more wrong checksums were counted since the last look.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        counted: impl FnOnce() -> u64,
        interfaces: &[String],
    ) -> Option<String> {
        if now < self.next {
            return None;
        }
        self.next = now + INTERVAL;
        let more = counted().saturating_sub(self.seen);
        self.seen += more;
        (more > 0).then(|| {
            format!(
                "{more} of the verified media packets that came in on {} had a wrong UDP checksum; their receivers \
                 drop them. If the sender is a container or virtual machine on this host, or the other end of a veth, \
                 it leaves checksums to its network card: run `ethtool -K <its interface> tx off` there",
                interfaces.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_warns_once_for_each_rise() {
        let start = Instant::now();
        let eth = ["eth0".to_owned()];
        let mut watch = ChecksumWatch::new(start, 7);
        assert_eq!(watch.look(start, || 9, &eth), None, "not yet due");
        let warning = watch.look(start + INTERVAL, || 9, &eth).expect("two more");
        assert!(warning.starts_with("2 of") && warning.contains("eth0") && warning.contains("ethtool -K"));
        assert_eq!(watch.look(start + INTERVAL * 2, || 9, &eth), None);
        assert_eq!(watch.poll_timeout(), start + INTERVAL * 3);
    }
}
