//! The sequence numbers of a dialog, one per direction (RFC 3261 s.12.2.1.1, s.12.2.2, s.8.1.1.5).

use thiserror::Error;

/// A request that is older than one already seen in the dialog; answered 500 (RFC 3261 s.12.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("CSeq {received} is lower than {last_seen}, already seen in this dialog")]
pub struct OutOfOrder {
    /// The number of the late request.
    pub received: u32,
    /// The highest number seen before.
    pub last_seen: u32,
}

/// Sequence numbers of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    local: u32,
    remote: Option<u32>,
}

impl Sequence {
    /// Of a dialog that our request, numbered `local`, made; the peer has sent none yet.
    #[must_use]
    pub const fn of_caller(local: u32) -> Self {
        Self { local, remote: None }
    }

    /// Of a dialog that the peer's request, numbered `remote`, made. Our first request will be numbered 1.
    #[must_use]
    pub const fn of_callee(remote: u32) -> Self {
        Self { local: 0, remote: Some(remote) }
    }

    /// The number of our latest request.
    #[must_use]
    pub const fn local(&self) -> u32 {
        self.local
    }

    /// The highest number of the peer's requests; `None` before its first.
    #[must_use]
    pub const fn remote(&self) -> Option<u32> {
        self.remote
    }

    /// Takes the number for our next request (not for ACK and CANCEL, which repeat the INVITE's).
    pub const fn advance(&mut self) -> u32 {
        // A dialog would need 2^31 requests of ours to leave the range that RFC 3261 s.8.1.1.5 allows; the peer's
        // numbers, which it can choose at will, never become ours.
        self.local = self.local.wrapping_add(1);
        self.local
    }

    /// Notes our request with a number chosen elsewhere (an INVITE repeated with credentials or after 491).
    pub const fn note_local(&mut self, number: u32) {
        if number > self.local {
            self.local = number;
        }
    }

    /// Checks and notes the number of a request of the peer (not of ACK and CANCEL). Gaps are allowed.
    ///
    /// # Errors
    /// The request is older than one seen before: answer 500.
    pub const fn accept(&mut self, received: u32) -> Result<(), OutOfOrder> {
        match self.remote {
            Some(last_seen) if received < last_seen => Err(OutOfOrder { received, last_seen }),
            Some(_) | None => {
                self.remote = Some(received);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_of_ours_is_one_higher() {
        let mut sequence = Sequence::of_caller(7);
        assert_eq!(sequence.advance(), 8);
        sequence.note_local(12);
        sequence.note_local(3);
        assert_eq!(sequence.advance(), 13);
        assert_eq!(Sequence::of_callee(100).advance(), 1);
    }

    #[test]
    fn the_peers_requests_may_skip_but_not_go_back() {
        let mut sequence = Sequence::of_callee(10);
        assert_eq!(sequence.accept(14), Ok(()));
        assert_eq!(sequence.accept(13), Err(OutOfOrder { received: 13, last_seen: 14 }));
        assert_eq!(sequence.remote(), Some(14));
        assert_eq!(sequence.accept(15), Ok(()));
    }

    #[test]
    fn a_callees_first_request_may_have_any_number() {
        let mut sequence = Sequence::of_caller(1);
        assert_eq!(sequence.remote(), None);
        assert_eq!(sequence.accept(0), Ok(()));
    }
}
