//! How much a peer may make us hold or walk through. Each limit has its reason.

/// Bytes of one message. The largest UDP payload; streams get no more, so that every message that one transport
/// brought can leave by another.
pub const MESSAGE_BYTES: usize = 65_535;

/// Bytes of a start line. Request-URIs with embedded parameters reach 2 kB in the field; four times that is room.
pub const START_LINE_BYTES: usize = 8_192;

/// Header lines of one message, folded lines counted once. Long paths through an IMS core reach some 80.
pub const HEADER_LINES: usize = 256;

/// Bytes of one header line with its folding. Identity tokens and long Route headers reach 8 kB.
pub const HEADER_LINE_BYTES: usize = 16_384;

/// Values of one listed header (Via, Route, Record-Route, Contact). Max-Forwards starts at 70, so a longer path is a
/// loop or an attack.
pub const LIST_VALUES: usize = 128;
