//! Request methods: an open set, compared byte for byte (RFC 3261 s.7.1: methods are case-sensitive).

use std::fmt;

use crate::sip::lex;

macro_rules! methods {
    ($($variant:ident = $text:literal;)*) => {
        /// The method of a request or of a `CSeq`.
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $(#[doc = concat!("`", $text, "`")] $variant,)*
            /// Any other token, kept as written.
            Other(Box<str>),
        }

        impl Method {
            /// The method that this token names; `None` if it is no token.
            #[must_use]
            pub fn from_token(token: &[u8]) -> Option<Self> {
                $(if token == $text.as_bytes() { return Some(Self::$variant); })*
                if !lex::is_token(token) {
                    return None;
                }
                lex::text(token).map(|t| Self::Other(t.into()))
            }

            /// As on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(token) => token,
                }
            }
        }
    };
}

methods! {
    Invite = "INVITE";
    Ack = "ACK";
    Bye = "BYE";
    Cancel = "CANCEL";
    Options = "OPTIONS";
    Register = "REGISTER";
    Info = "INFO";
    Prack = "PRACK";
    Update = "UPDATE";
    Refer = "REFER";
    Subscribe = "SUBSCRIBE";
    Notify = "NOTIFY";
    Message = "MESSAGE";
    Publish = "PUBLISH";
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_and_case_sensitive() {
        assert_eq!(Method::from_token(b"INVITE"), Some(Method::Invite));
        assert_eq!(Method::from_token(b"invite"), Some(Method::Other("invite".into())));
        assert_eq!(Method::from_token(b"!x%+~"), Some(Method::Other("!x%+~".into())));
        assert_eq!(Method::from_token(b"a b"), None);
        assert_eq!(Method::from_token(b""), None);
        assert_eq!(Method::Prack.to_string(), "PRACK");
    }
}
