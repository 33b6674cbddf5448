//! The engine's counters: one name for every reason to drop, refuse or correct something.

macro_rules! counters {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Something worth counting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Counter {
            $($(#[$doc])* $variant,)+
        }

        impl Counter {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in status, metrics and logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

counters! {
    /// A datagram or message from a source that is no trunk in that realm: no answer.
    UnknownSource = "unknown_source",
    /// A message or connection from the operator's block list: no answer.
    GuardBlocked = "guard_blocked",
    /// A message or connection from a source that is denied: no answer.
    GuardDenied = "guard_denied",
    /// A message or connection from a source that is not known, at the level of the allow list: no answer.
    GuardNotAllowed = "guard_not_allowed",
    /// A message over its source's limit of requests: no answer.
    GuardOverLimit = "guard_over_limit",
    /// A source denied because it exceeded its limit of requests.
    DeniedFlood = "denied_flood",
    /// A source denied because what it sent was broken time and again.
    DeniedMalformed = "denied_malformed",
    /// A source denied because it is a known scanner.
    DeniedScanner = "denied_scanner",
    /// A message of a known scanner: no answer.
    Scanner = "scanner",
    /// A connection closed because its source was denied or blocked.
    GuardClosed = "guard_closed",
    /// What arrived is not SIP, or so broken that it cannot be answered.
    Unparseable = "unparseable",
    /// A request answered with 400 or another status that says what is wrong with it.
    MalformedRequest = "malformed_request",
    /// A response that cannot be used.
    MalformedResponse = "malformed_response",
    /// A response that no transaction of ours waits for.
    StrayResponse = "stray_response",
    /// An ACK that belongs to no call.
    StrayAck = "stray_ack",
    /// An in-dialog request of no dialog of ours: 481.
    NoSuchDialog = "no_such_dialog",
    /// An in-dialog request with a CSeq that goes back: 500.
    CseqOutOfOrder = "cseq_out_of_order",
    /// A method that is not served: 405 or 501.
    MethodRefused = "method_refused",
    /// Max-Forwards used up: 483.
    TooManyHops = "too_many_hops",
    /// An extension is required that is not supported: 420.
    BadExtension = "bad_extension",
    /// A request that came back to us: 482.
    Loop = "loop",
    /// Bytes of a connection that is not known (any more).
    UnknownConnection = "unknown_connection",
    /// A connection was refused or closed because there are too many.
    TooManyConnections = "too_many_connections",
    /// A connection was closed because its framing broke.
    FramingBroken = "framing_broken",
    /// A keep-alive was answered.
    KeepAlive = "keep_alive",
    /// A new call refused because of draining.
    RefusedDraining = "refused_draining",
    /// A new call refused because enough are up.
    RefusedCapacity = "refused_capacity",
    /// A new call or stream refused because no media port is left.
    RefusedPorts = "refused_ports",
    /// A new call refused because there is no route.
    RefusedNoRoute = "refused_no_route",
    /// A call or update refused because the dataplane failed.
    RefusedMedia = "refused_media",
    /// A call or update refused because of its SDP.
    RefusedSdp = "refused_sdp",
    /// A request refused because of its body's type.
    RefusedContentType = "refused_content_type",
    /// An update that met another one: 491 or 500.
    Glare = "glare",
    /// A request inside a dialog refused because too many wait for the other side.
    TooManyRelays = "too_many_relays",
    /// A call that nobody answered in time.
    CallNoAnswer = "call_no_answer",
    /// A call whose 2xx was never acknowledged.
    CallNoAck = "call_no_ack",
    /// A call ended because a leg's connection was lost.
    CallConnectionLost = "call_connection_lost",
    /// Calls ended because no stream of theirs carried anything for too long.
    CallMediaTimeout = "call_media_timeout",
    /// A peer was sent something, so that a way which only we can open is open.
    MediaPrimed = "media_primed",
    /// A side that had fallen silent may be learned anew.
    MediaReopened = "media_reopened",
    /// A call of the daemon before, taken over with nothing but its media.
    CallAdopted = "call_adopted",
    /// A call ended because the answer could not be used.
    BadAnswer = "bad_answer",
    /// A 2xx that crossed our CANCEL: acknowledged and ended.
    AnswerAfterCancel = "answer_after_cancel",
    /// A call ended by the operator.
    CallHungUpByOperator = "call_hung_up_by_operator",
    /// A call dropped because its teardown took too long.
    TeardownTimeout = "teardown_timeout",
    /// A second answer of a forked call, acknowledged and ended.
    ForkEnded = "fork_ended",
    /// A provisional response of one fork too many, not relayed.
    ForkIgnored = "fork_ignored",
    /// A header line not relayed because it shows the other side's topology.
    HeaderHidden = "header_hidden",
    /// A body not relayed because it shows the other side's topology.
    BodyHidden = "body_hidden",
    /// A request refused because as many transactions live as are allowed.
    Overloaded = "overloaded",
    /// A message could not be delivered.
    SendFailed = "send_failed",
    /// A result of the dataplane that nobody waits for.
    StrayMediaResult = "stray_media_result",
}

/// The values.
#[derive(Clone, Debug)]
pub struct Counters([u64; Counter::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([0; Counter::ALL.len()])
    }
}

impl Counters {
    /// One more.
    pub fn count(&mut self, counter: Counter) {
        if let Some(value) = self.0.get_mut(counter as usize) {
            *value += 1;
        }
    }

    /// Its value.
    #[must_use]
    pub fn value(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// All with their names.
    #[must_use]
    pub fn named(&self) -> Vec<(&'static str, u64)> {
        Counter::ALL.iter().map(|&counter| (counter.name(), self.value(counter))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_values_stay_apart() {
        let mut counters = Counters::default();
        counters.count(Counter::Glare);
        counters.count(Counter::Glare);
        counters.count(Counter::StrayMediaResult);
        let named = counters.named();
        assert_eq!(named.iter().filter(|(_, value)| *value > 0).count(), 2);
        assert_eq!(counters.value(Counter::Glare), 2);
        let names: std::collections::BTreeSet<_> = named.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), Counter::ALL.len());
    }
}
