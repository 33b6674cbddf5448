//! Capacities of the maps, each with its reason, and the number of the layout.

/// Rises with every change of a map's layout, key or meaning. Pins live in a directory of this number.
pub const ABI: u32 = 3;

/// IPv4 media addresses of ours: each costs 8 MiB of slots, and the loader makes only as many as are configured.
pub const ADDRESS_SLOTS: u32 = 64;

/// IPv6 media addresses of ours: each costs 12 MiB, and the loader makes room for none where none is configured.
pub const ADDRESS_SLOTS6: u32 = 64;

/// Flow slots per address: every port, so that the index needs no base and survives a change of the range.
pub const PORTS_PER_ADDRESS: u32 = 1 << 16;

/// Next hops: neighbours of our interfaces, not peers; a few gateways, or a subnet of phones.
pub const NEXT_HOPS: u32 = 4096;

/// Interfaces that packets may leave from.
pub const DEVICES: u32 = 64;

/// RTCP packets that a port takes in a rate window. Reports are one in seconds (RFC 3550 section 6.2); feedback of a busy
/// video stream (RFC 4585) is some tens in a second.
pub const RTCP_PER_WINDOW: u16 = 200;

/// Room of the ring buffer in bytes: some 8,000 events, a second of claims at a rate that signalling cannot reach.
pub const EVENTS_BYTES: u32 = 256 * 1024;

/// Room of the ring buffer of RTCP in bytes: some 3,700 reports, a fifth of a second's of 50,000 calls.
pub const REPORTS_BYTES: u32 = 1024 * 1024;

/// SIP sockets of ours, and one entry more for each of their addresses.
pub const SIP_SOCKETS: u32 = 1024;

/// Sources whose windows are kept; the one not heard for longest gives way. Forged sources beyond that are the total
/// limit's affair. 48 bytes each.
pub const SOURCES: u32 = 65_536;

/// Denied sources: the daemon keeps to the number that is configured, this is the most that it can be.
pub const DENIED: u32 = 65_536;

/// Prefixes on the block list, and on the list of those who are trusted: the operator's and those of the configured
/// peers. A look-up costs by depth, not by number.
pub const PREFIXES: u32 = 16_384;

/// Ports that the relay serves: those of 32,000 streams. An entry takes memory while it is in use.
pub const STEERED_PORTS: u32 = 131_072;

/// Threads of the relay: one per core up to this many, which is more than a host's network stack lets them use. Each has
/// five descriptors.
pub const RELAY_THREADS: u32 = 8;

/// Names of maps and programs in the kernel: 15 bytes and a terminating zero.
pub const NAME_BYTES: usize = 15;
