//! Offer/answer on one leg: whose turn it is (RFC 3264, RFC 6337), and whether an answer fits its offer.
//!
//! ```text
//!            SendOffer                     ReceiveOffer
//!   OfferSent <------------- Stable -------------> OfferReceived
//!     | ReceivePreview  ^     ^  ^     ^  SendPreview |
//!     v                 |     |  |     |              v
//!   PreviewReceived ----+-----+  +-----+------- PreviewSent
//!             ReceiveAnswer          SendAnswer
//!             OfferRefused           RefuseOffer
//! ```
//!
//! A *preview* is a description in a provisional response that is not sent reliably: media may already follow it, but
//! the answer is the one in the final response (RFC 6337 s.3.1.1). Whether anything was agreed before is the call's
//! knowledge: `Rollback` takes it back to that.

use super::model::Sdp;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum State {
    /// No offer is open.
    #[default]
    Stable,
    /// We wait for the peer's answer.
    OfferSent,
    /// We wait for the peer's answer and have seen a preview of it.
    PreviewReceived,
    /// The peer waits for our answer.
    OfferReceived,
    /// The peer waits for our answer and has seen a preview of it.
    PreviewSent,
}

/// A description crosses, or an offer fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// We send an offer.
    SendOffer,
    /// The peer sends an offer.
    ReceiveOffer,
    /// We send a description in an unreliable provisional response.
    SendPreview,
    /// The peer sends a description in an unreliable provisional response.
    ReceivePreview,
    /// We send a description in a 2xx, an ACK or a reliable provisional response.
    SendAnswer,
    /// The peer sends a description in a 2xx, an ACK or a reliable provisional response.
    ReceiveAnswer,
    /// The peer refuses our offer, or the request that carried it fails.
    OfferRefused,
    /// We refuse the peer's offer, or it takes it back (CANCEL).
    RefuseOffer,
}

/// What follows for the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// An offer is open: prepare media for it.
    Propose,
    /// Media may follow this description before it is final.
    Preview,
    /// Offer and answer hold from now on.
    Agree,
    /// What held before the offer holds on.
    Rollback,
    /// The peer repeats itself: its description changes nothing (RFC 3261 s.13.2.1).
    Ignore,
    /// Both sides offer at once: refuse theirs with 491 (RFC 3261 s.14.2).
    RefusePending,
    /// The peer offers again before it was answered: refuse with 500 and Retry-After (RFC 3261 s.14.2).
    RefuseUnanswered,
    /// We may not send this now. Nothing was changed.
    NotNow,
}

impl State {
    /// Whether the peer's offer waits for our answer.
    #[must_use]
    pub const fn owes_answer(self) -> bool {
        match self {
            Self::OfferReceived | Self::PreviewSent => true,
            Self::Stable | Self::OfferSent | Self::PreviewReceived => false,
        }
    }

    /// The state after an event, and what follows.
    #[must_use]
    pub const fn on(self, event: Event) -> (Self, &'static [Action]) {
        use Action as A;
        use Event as E;
        match (self, event) {
            (Self::Stable, E::SendOffer) => (Self::OfferSent, &[A::Propose]),
            (Self::Stable, E::ReceiveOffer) => (Self::OfferReceived, &[A::Propose]),
            (Self::Stable, E::ReceivePreview | E::ReceiveAnswer) => (self, &[A::Ignore]),
            // We may repeat in the 2xx what a reliable provisional response has answered.
            (Self::Stable, E::SendPreview | E::SendAnswer | E::OfferRefused | E::RefuseOffer) => (self, &[]),

            (Self::OfferSent | Self::PreviewReceived, E::ReceivePreview) => {
                (Self::PreviewReceived, &[A::Preview])
            }
            (Self::OfferSent | Self::PreviewReceived, E::ReceiveAnswer) => (Self::Stable, &[A::Agree]),
            (Self::OfferSent | Self::PreviewReceived, E::OfferRefused) => (Self::Stable, &[A::Rollback]),
            (Self::OfferSent | Self::PreviewReceived, E::ReceiveOffer) => (self, &[A::RefusePending]),
            (Self::OfferSent | Self::PreviewReceived, E::SendOffer | E::SendPreview | E::SendAnswer) => {
                (self, &[A::NotNow])
            }
            // There is no offer of theirs to refuse.
            (Self::OfferSent | Self::PreviewReceived, E::RefuseOffer) => (self, &[]),

            (Self::OfferReceived | Self::PreviewSent, E::SendPreview) => (Self::PreviewSent, &[A::Preview]),
            (Self::OfferReceived | Self::PreviewSent, E::SendAnswer) => (Self::Stable, &[A::Agree]),
            (Self::OfferReceived | Self::PreviewSent, E::RefuseOffer) => (Self::Stable, &[A::Rollback]),
            (Self::OfferReceived | Self::PreviewSent, E::ReceiveOffer) => (self, &[A::RefuseUnanswered]),
            (Self::OfferReceived | Self::PreviewSent, E::SendOffer) => (self, &[A::NotNow]),
            // An answer to no offer of ours.
            (Self::OfferReceived | Self::PreviewSent, E::ReceivePreview | E::ReceiveAnswer) => {
                (self, &[A::Ignore])
            }
            (Self::OfferReceived | Self::PreviewSent, E::OfferRefused) => (self, &[]),
        }
    }
}

/// Why a description does not answer an offer (RFC 3264 s.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// It has more or fewer streams.
    #[error("{answered} streams answer {offered}")]
    StreamCount {
        /// m-lines of the offer.
        offered: usize,
        /// m-lines of the answer.
        answered: usize,
    },
    /// A stream of another kind stands in its place.
    #[error("stream {mline} is answered by another media type")]
    MediaType {
        /// Position of the m-line.
        mline: usize,
    },
    /// RTP is answered by SRTP or the other way round.
    #[error("stream {mline} is answered with another protection")]
    Protection {
        /// Position of the m-line.
        mline: usize,
    },
    /// A disabled stream is answered with a port.
    #[error("disabled stream {mline} is answered as if it were offered")]
    Disabled {
        /// Position of the m-line.
        mline: usize,
    },
}

/// Whether `answer` answers `offer`: the same streams in the same order, none of them brought back to life.
///
/// A rejected stream may say what it likes; profiles with and without feedback (AVP, AVPF) may meet.
///
/// # Errors
/// If it does not.
pub fn check_answer(offer: &Sdp, answer: &Sdp) -> Result<(), AnswerError> {
    let (offered, answered) = (offer.media.len(), answer.media.len());
    if offered != answered {
        return Err(AnswerError::StreamCount { offered, answered });
    }
    for (mline, (offer, answer)) in offer.media.iter().zip(&answer.media).enumerate() {
        if !offer.media.eq_ignore_ascii_case(&answer.media) {
            return Err(AnswerError::MediaType { mline });
        }
        if answer.port == 0 {
            continue;
        }
        if offer.port == 0 {
            return Err(AnswerError::Disabled { mline });
        }
        if offer.is_secure() != answer.is_secure() {
            return Err(AnswerError::Protection { mline });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    use Action::*;
    use Event::*;
    use State::*;

    /// Every pair, by state in the order of `STATES` and event in the order of `EVENTS`.
    const STATES: [State; 5] = [Stable, OfferSent, PreviewReceived, OfferReceived, PreviewSent];
    const EVENTS: [Event; 8] = [
        SendOffer,
        ReceiveOffer,
        SendPreview,
        ReceivePreview,
        SendAnswer,
        ReceiveAnswer,
        OfferRefused,
        RefuseOffer,
    ];

    #[rustfmt::skip]
    const TABLE: [[(State, Option<Action>); 8]; 5] = [
        // Stable
        [(OfferSent, Some(Propose)), (OfferReceived, Some(Propose)), (Stable, None), (Stable, Some(Ignore)),
         (Stable, None), (Stable, Some(Ignore)), (Stable, None), (Stable, None)],
        // OfferSent
        [(OfferSent, Some(NotNow)), (OfferSent, Some(RefusePending)), (OfferSent, Some(NotNow)), (PreviewReceived, Some(Preview)),
         (OfferSent, Some(NotNow)), (Stable, Some(Agree)), (Stable, Some(Rollback)), (OfferSent, None)],
        // PreviewReceived
        [(PreviewReceived, Some(NotNow)), (PreviewReceived, Some(RefusePending)), (PreviewReceived, Some(NotNow)), (PreviewReceived, Some(Preview)),
         (PreviewReceived, Some(NotNow)), (Stable, Some(Agree)), (Stable, Some(Rollback)), (PreviewReceived, None)],
        // OfferReceived
        [(OfferReceived, Some(NotNow)), (OfferReceived, Some(RefuseUnanswered)), (PreviewSent, Some(Preview)), (OfferReceived, Some(Ignore)),
         (Stable, Some(Agree)), (OfferReceived, Some(Ignore)), (OfferReceived, None), (Stable, Some(Rollback))],
        // PreviewSent
        [(PreviewSent, Some(NotNow)), (PreviewSent, Some(RefuseUnanswered)), (PreviewSent, Some(Preview)), (PreviewSent, Some(Ignore)),
         (Stable, Some(Agree)), (PreviewSent, Some(Ignore)), (PreviewSent, None), (Stable, Some(Rollback))],
    ];

    #[test]
    fn every_pair_of_state_and_event_does_what_the_table_says() {
        for (state, row) in STATES.into_iter().zip(TABLE) {
            for (event, (next, action)) in EVENTS.into_iter().zip(row) {
                let expected: Vec<Action> = action.into_iter().collect();
                assert_eq!(state.on(event), (next, expected.as_slice()), "{state:?} on {event:?}");
            }
        }
    }

    fn sdp(media: &[&str]) -> Sdp {
        let lines: String = media.iter().map(|line| format!("m={line}\r\n")).collect();
        Sdp::parse(format!("v=0\r\nc=IN IP4 192.0.2.1\r\n{lines}").as_bytes()).unwrap()
    }

    #[test]
    fn an_answer_has_the_offers_streams_in_its_order() {
        const AUDIO: &str = "audio 4000 RTP/AVP 0";
        const VIDEO: &str = "video 4002 RTP/AVPF 96";
        const OFF: &str = "video 0 RTP/AVP 96";
        const SECURE: &str = "audio 4000 RTP/SAVP 0";
        for (offer, answer, expected) in [
            (&[AUDIO, VIDEO][..], &[AUDIO, VIDEO][..], Ok(())),
            (&[AUDIO, VIDEO], &[AUDIO, OFF], Ok(())),
            (&[AUDIO, OFF], &[AUDIO, OFF], Ok(())),
            (&[], &[], Ok(())),
            (&[AUDIO, VIDEO], &[AUDIO], Err(AnswerError::StreamCount { offered: 2, answered: 1 })),
            (&[AUDIO], &[AUDIO, OFF], Err(AnswerError::StreamCount { offered: 1, answered: 2 })),
            (&[AUDIO, VIDEO], &[VIDEO, AUDIO], Err(AnswerError::MediaType { mline: 0 })),
            (&[AUDIO, OFF], &[AUDIO, VIDEO], Err(AnswerError::Disabled { mline: 1 })),
            (&[SECURE], &[AUDIO], Err(AnswerError::Protection { mline: 0 })),
            (&[AUDIO], &[SECURE], Err(AnswerError::Protection { mline: 0 })),
            (&[SECURE], &["audio 0 RTP/AVP 0"], Ok(())),
        ] {
            assert_eq!(check_answer(&sdp(offer), &sdp(answer)), expected, "{offer:?} answered by {answer:?}");
        }
    }
}
