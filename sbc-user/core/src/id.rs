//! Small identifiers that cross the engine's boundary. Newtypes, so that two of them cannot be swapped.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self, f)
            }
        }
    };
}

id!(
    /// Index of a realm in the configuration.
    RealmId(u16), "realm"
);
id!(
    /// Index of a trunk in the configuration.
    TrunkId(u16), "trunk"
);
id!(
    /// Index of a SIP listener over all realms.
    ListenerId(u16), "listener"
);
id!(
    /// A stream connection (TCP or TLS), unique for the life of the daemon; given by the shell.
    ConnId(u64), "conn"
);
id!(
    /// An operation whose result comes back as an input; unique for the life of the engine.
    OpId(u64), "op"
);
id!(
    /// A call, unique for the life of the engine. Also names the call's media plan at the dataplane.
    CallId(u64), "call"
);
