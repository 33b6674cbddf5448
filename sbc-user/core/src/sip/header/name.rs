//! Header names: the ones we know by number, any other by its text; compact forms are the same name.

use std::fmt;

macro_rules! names {
    ($($variant:ident = $text:literal $(, $compact:literal)?;)*) => {
        /// The name of a header. Comparison ignores case and knows the compact forms.
        #[derive(Clone, Copy)]
        pub enum HeaderName<'a> {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// Any other name, as written. Made by [`From<&str>`], which recognises the known ones.
            Other(&'a str),
        }

        #[derive(Clone, Copy)]
        #[repr(u8)]
        enum Number { $($variant,)* }

        const KNOWN: &[(&str, HeaderName<'static>)] = &[$(($text, HeaderName::$variant),)*];

        impl<'a> HeaderName<'a> {
            /// The long form, as registered; unknown names as written.
            #[must_use]
            pub const fn as_str(self) -> &'a str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }

            const fn number(self) -> Option<u8> {
                match self {
                    $(Self::$variant => Some(Number::$variant as u8),)*
                    Self::Other(_) => None,
                }
            }
        }

        const fn compact(letter: u8) -> Option<u8> {
            match letter.to_ascii_lowercase() {
                $($($compact => Some(Number::$variant as u8),)?)*
                _ => None,
            }
        }
    };
}

names! {
    Accept = "Accept";
    AcceptContact = "Accept-Contact", b'a';
    AcceptEncoding = "Accept-Encoding";
    AcceptLanguage = "Accept-Language";
    AlertInfo = "Alert-Info";
    Allow = "Allow";
    AllowEvents = "Allow-Events", b'u';
    AuthenticationInfo = "Authentication-Info";
    Authorization = "Authorization";
    CallId = "Call-ID", b'i';
    CallInfo = "Call-Info";
    Contact = "Contact", b'm';
    ContentDisposition = "Content-Disposition";
    ContentEncoding = "Content-Encoding", b'e';
    ContentLanguage = "Content-Language";
    ContentLength = "Content-Length", b'l';
    ContentType = "Content-Type", b'c';
    CSeq = "CSeq";
    Date = "Date";
    Diversion = "Diversion";
    ErrorInfo = "Error-Info";
    Event = "Event", b'o';
    Expires = "Expires";
    From = "From", b'f';
    Geolocation = "Geolocation";
    HistoryInfo = "History-Info";
    Identity = "Identity", b'y';
    InReplyTo = "In-Reply-To";
    Join = "Join";
    MaxForwards = "Max-Forwards";
    MimeVersion = "MIME-Version";
    MinExpires = "Min-Expires";
    MinSe = "Min-SE";
    Organization = "Organization";
    PAccessNetworkInfo = "P-Access-Network-Info";
    PAssertedIdentity = "P-Asserted-Identity";
    PAssertedService = "P-Asserted-Service";
    PChargingVector = "P-Charging-Vector";
    PEarlyMedia = "P-Early-Media";
    PPreferredIdentity = "P-Preferred-Identity";
    Path = "Path";
    Priority = "Priority";
    Privacy = "Privacy";
    ProxyAuthenticate = "Proxy-Authenticate";
    ProxyAuthorization = "Proxy-Authorization";
    ProxyRequire = "Proxy-Require";
    RAck = "RAck";
    Reason = "Reason";
    RecordRoute = "Record-Route";
    RecvInfo = "Recv-Info";
    ReferTo = "Refer-To", b'r';
    ReferredBy = "Referred-By", b'b';
    RejectContact = "Reject-Contact", b'j';
    RemotePartyId = "Remote-Party-ID";
    Replaces = "Replaces";
    ReplyTo = "Reply-To";
    RequestDisposition = "Request-Disposition", b'd';
    Require = "Require";
    ResourcePriority = "Resource-Priority";
    RetryAfter = "Retry-After";
    Route = "Route";
    RSeq = "RSeq";
    Server = "Server";
    ServiceRoute = "Service-Route";
    SessionExpires = "Session-Expires", b'x';
    SessionId = "Session-ID";
    Subject = "Subject", b's';
    SubscriptionState = "Subscription-State";
    Supported = "Supported", b'k';
    TargetDialog = "Target-Dialog";
    Timestamp = "Timestamp";
    To = "To", b't';
    Unsupported = "Unsupported";
    UserAgent = "User-Agent";
    UserToUser = "User-to-User";
    Via = "Via", b'v';
    Warning = "Warning";
    WwwAuthenticate = "WWW-Authenticate";
}

const LONGEST: usize = 24;

/// Known names by length: `BY_LENGTH[n]` lists the numbers of the names with `n` bytes, closed by `u8::MAX`.
const BY_LENGTH: [[u8; 12]; LONGEST + 1] = {
    let mut table = [[u8::MAX; 12]; LONGEST + 1];
    let mut used = [0_usize; LONGEST + 1];
    let mut number = 0;
    while number < KNOWN.len() {
        let length = KNOWN[number].0.len();
        table[length][used[length]] = number as u8;
        used[length] += 1;
        number += 1;
    }
    table
};

/// The number under which the offset table keeps a name; [`UNKNOWN`] for names outside of the known set.
pub(crate) fn number_of(text: &[u8]) -> u8 {
    if let [letter] = text {
        return compact(*letter).unwrap_or(UNKNOWN);
    }
    let Some(candidates) = BY_LENGTH.get(text.len()) else { return UNKNOWN };
    for number in candidates {
        match KNOWN.get(usize::from(*number)) {
            Some((known, _)) if known.as_bytes().eq_ignore_ascii_case(text) => return *number,
            Some(_) => {}
            None => break,
        }
    }
    UNKNOWN
}

/// The number of every name that is not known.
pub(crate) const UNKNOWN: u8 = u8::MAX;

impl<'a> HeaderName<'a> {
    /// The name behind a number of the offset table.
    pub(crate) fn from_number(number: u8, text: &'a str) -> Self {
        KNOWN.get(usize::from(number)).map_or(Self::Other(text), |(_, name)| *name)
    }

    /// The number of this name, [`UNKNOWN`] if it has none.
    pub(crate) fn known_number(self) -> u8 {
        self.number().unwrap_or(UNKNOWN)
    }
}

impl<'a> From<&'a str> for HeaderName<'a> {
    fn from(text: &'a str) -> Self {
        Self::from_number(number_of(text.as_bytes()), text)
    }
}

impl PartialEq<HeaderName<'_>> for HeaderName<'_> {
    fn eq(&self, other: &HeaderName<'_>) -> bool {
        match (self.number(), other.number()) {
            (Some(a), Some(b)) => a == b,
            _ => self.as_str().eq_ignore_ascii_case(other.as_str()),
        }
    }
}

impl Eq for HeaderName<'_> {}

impl fmt::Debug for HeaderName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for HeaderName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for (text, name) in KNOWN {
            assert_eq!(HeaderName::from(*text), *name);
            assert!(HeaderName::from(text.to_uppercase().as_str()).number().is_some(), "{text}");
            assert_eq!(name.as_str(), *text);
        }
    }

    #[test]
    fn compact_forms_are_the_same_name() {
        for (letter, name) in [
            ("v", HeaderName::Via),
            ("F", HeaderName::From),
            ("t", HeaderName::To),
            ("i", HeaderName::CallId),
            ("m", HeaderName::Contact),
            ("l", HeaderName::ContentLength),
            ("c", HeaderName::ContentType),
            ("k", HeaderName::Supported),
            ("x", HeaderName::SessionExpires),
        ] {
            assert_eq!(HeaderName::from(letter), name);
        }
        assert_eq!(HeaderName::from("z"), HeaderName::Other("Z"));
    }

    #[test]
    fn unknown_names_keep_their_text() {
        let name = HeaderName::from("X-Carrier-Trace");
        assert_eq!(name.as_str(), "X-Carrier-Trace");
        assert_eq!(name, HeaderName::Other("x-carrier-TRACE"));
        assert_ne!(name, HeaderName::Via);
        assert_ne!(HeaderName::from("a-name-that-is-longer-than-any-known-name"), HeaderName::Via);
    }
}
