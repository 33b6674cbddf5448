//! What the caller is told when the called side refuses: one table.
//!
//! A status passes as it is when it speaks about the called party or about the session. It is replaced when it speaks
//! about the hop between us and the called trunk, of which the caller knows nothing and which it could not mend:
//!
//! * 3xx: this SBC follows no redirection, and its Contacts are the other side's addresses. 480.
//! * 401, 407: a challenge to *us*. It names the other side's realm, and the digest would cover a URI that the caller
//!   has never seen, so its answer could not be right. 500 when topology is hidden; without hiding it is relayed.
//! * 405, 416, 420, 421, 422, 423, 481, 491, 494, 505: what is wrong is the message that *we* built. 500.
//! * 487 that the caller did not ask for: the call was ended elsewhere. 480.
//! * 503: only about that trunk, and must not make the caller avoid us (RFC 3261 s.16.7 step 6). 500.
//!
//! A replaced status is told in a `Reason` header (RFC 3326) beside the one that the called side sent.
//! Answers to requests inside a dialog (re-INVITE, INFO …) have a smaller table, [`in_dialog`]: there both sides share
//! one session, so nearly all of them are the other party's own words.

/// The status to relay for a final failure of the callee to the call's first INVITE.
#[must_use]
pub const fn initial(status: u16, hide_topology: bool) -> u16 {
    match status {
        300..=399 | 487 => 480,
        401 | 407 => {
            if hide_topology {
                500
            } else {
                status
            }
        }
        405 | 416 | 420 | 421 | 422 | 423 | 481 | 491 | 494 | 503 | 505 => 500,
        400..=699 => status,
        // Not a final failure: whoever asks has nothing better to relay.
        _ => 500,
    }
}

/// The status to relay for a final failure to a request inside the dialog.
#[must_use]
pub const fn in_dialog(status: u16, hide_topology: bool) -> u16 {
    match status {
        300..=399 => 480,
        401 | 407 => {
            if hide_topology {
                500
            } else {
                status
            }
        }
        400..=699 => status,
        _ => 500,
    }
}

/// The usual words for a status (RFC 3261 s.21 and the registry).
#[must_use]
pub const fn phrase(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        491 => "Request Pending",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        _ => match status / 100 {
            1 => "Session Progress",
            2 => "OK",
            3 => "Redirected",
            4 => "Request Failure",
            5 => "Server Failure",
            _ => "Global Failure",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_about_the_callee_passes() {
        for status in [
            400, 403, 404, 408, 410, 413, 415, 480, 482, 483, 484, 486, 488, 500, 502, 504, 600, 603, 606,
            699,
        ] {
            assert_eq!(initial(status, true), status);
        }
    }

    #[test]
    fn what_speaks_about_the_hop_is_replaced() {
        for (from, to) in
            [(302, 480), (401, 500), (407, 500), (420, 500), (481, 500), (487, 480), (491, 500), (503, 500)]
        {
            assert_eq!(initial(from, true), to);
        }
        assert_eq!(initial(407, false), 407);
    }

    #[test]
    fn nothing_but_a_final_failure_leaves_the_table() {
        for status in 0..=1000 {
            assert!((400..=699).contains(&initial(status, true)), "{status}");
            assert!((400..=699).contains(&in_dialog(status, true)), "{status}");
        }
        assert_eq!(in_dialog(491, true), 491);
        assert_eq!(in_dialog(481, true), 481);
    }
}
