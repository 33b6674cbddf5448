//! Dialogs: the relation between two user agents that outlives one transaction (RFC 3261 s.12).
//!
//! A dialog knows how requests inside it must look and which of the peer's belong to it. It knows nothing of
//! transactions and calls; who sends what and when is decided above.

mod id;
mod route_set;
mod sequence;
mod state;
mod unacknowledged;

use thiserror::Error;

pub use id::DialogId;
pub use route_set::{Addressing, RouteSet};
pub use sequence::{OutOfOrder, Sequence};
pub use state::{DialogEvent, DialogState};
pub use unacknowledged::{Unacknowledged, Verdict};

use crate::sip::{HeaderError, HeaderName, Message, MessageBuilder, Method};

/// Hops that a request of our own may take (RFC 3261 s.8.1.1.6).
pub const MAX_FORWARDS: u8 = 70;

/// One dialog, seen from our side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialog {
    id: DialogId,
    state: DialogState,
    sequence: Sequence,
    /// What stands in From when we send, with our tag.
    local: Box<[u8]>,
    /// What stands in To when we send, with the peer's tag if it has one.
    remote: Box<[u8]>,
    remote_target: Box<str>,
    route_set: RouteSet,
}

/// Why a request of the peer is not taken in its dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestRefused {
    /// The dialog is over: answer 481.
    #[error("the dialog has ended")]
    Ended,
    /// The request is older than one before: answer 500.
    #[error(transparent)]
    OutOfOrder(#[from] OutOfOrder),
    /// The CSeq cannot be read: answer 400.
    #[error(transparent)]
    Malformed(#[from] HeaderError),
}

impl RequestRefused {
    /// The status to answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Ended => 481,
            Self::OutOfOrder(_) => 500,
            Self::Malformed(_) => 400,
        }
    }
}

impl Dialog {
    /// The callee's, made when it answers `request` with `local_tag` (s.12.1.1): `state` is early for 101 to 199,
    /// confirmed for 2xx.
    ///
    /// # Errors
    /// The request lacks what a dialog is made of, or it is malformed: answer 400.
    pub fn of_callee(request: &Message, local_tag: &str, state: DialogState) -> Result<Self, HeaderError> {
        let from = request.from()?;
        let to = request.to()?;
        let mut local = to.raw().to_vec();
        if to.tag().is_none() {
            if to.params().contains("tag") {
                // An empty one, which would stand before ours.
                local.truncate(local.len() - to.params().raw().len());
            }
            local.extend_from_slice(b";tag=");
            local.extend_from_slice(local_tag.as_bytes());
        }
        Ok(Self {
            id: DialogId {
                call_id: request.call_id()?.into(),
                local_tag: local_tag.into(),
                remote_tag: from.tag().map(Into::into),
            },
            state,
            sequence: Sequence::of_callee(request.cseq()?.number),
            local: local.into(),
            remote: from.raw().into(),
            remote_target: contact(request)?.ok_or(HeaderError::Missing(HeaderName::Contact))?,
            route_set: RouteSet::of_callee(request)?,
        })
    }

    /// The caller's, made by a 101 to 199 with a To tag or a 2xx to our INVITE (s.12.1.2). A response without Contact
    /// (RFC 2543) leaves the address that the request went to as the remote target.
    ///
    /// # Errors
    /// The response lacks what a dialog is made of, or it is malformed.
    pub fn of_caller(request: &Message, response: &Message) -> Result<Self, HeaderError> {
        let from = request.from()?;
        let to = response.to()?;
        let remote_target = match contact(response)? {
            Some(target) => target,
            None => request.request_uri().unwrap_or_default().into(),
        };
        Ok(Self {
            id: DialogId {
                call_id: request.call_id()?.into(),
                local_tag: from.tag().ok_or(HeaderError::Malformed(HeaderName::From))?.into(),
                remote_tag: to.tag().map(Into::into),
            },
            state: match response.status() {
                Some(100..=199) => DialogState::Early,
                Some(_) | None => DialogState::Confirmed,
            },
            sequence: Sequence::of_caller(request.cseq()?.number),
            local: from.raw().into(),
            remote: to.raw().into(),
            remote_target,
            route_set: RouteSet::of_caller(response)?,
        })
    }

    /// Its name.
    #[must_use]
    pub const fn id(&self) -> &DialogId {
        &self.id
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn state(&self) -> DialogState {
        self.state
    }

    /// Where the peer wants requests sent.
    #[must_use]
    pub fn remote_target(&self) -> &str {
        &self.remote_target
    }

    /// The address of whoever gets our requests first: a proxy of the route set, else the peer.
    #[must_use]
    pub fn next_hop(&self) -> &str {
        self.route_set.next_hop(&self.remote_target)
    }

    /// Something happened to it.
    pub fn on(&mut self, event: DialogEvent) {
        self.state = self.state.on(event);
    }

    /// A caller's early dialog is confirmed by this 2xx, which decides anew on the route set (s.13.2.2.4). A confirmed
    /// one stays as it is.
    ///
    /// # Errors
    /// The response is malformed; the dialog is confirmed with what the provisional response had said.
    pub fn confirm(&mut self, response: &Message) -> Result<(), HeaderError> {
        let was_early = self.state == DialogState::Early;
        self.on(DialogEvent::Success);
        if was_early {
            self.route_set = RouteSet::of_caller(response)?;
            self.refresh_target(response)?;
        }
        Ok(())
    }

    /// The peer named another address in a re-INVITE or UPDATE that we accept, or in its 2xx to one of ours (s.12.2).
    ///
    /// # Errors
    /// Its Contact is malformed; the target stays as it was.
    pub fn refresh_target(&mut self, message: &Message) -> Result<(), HeaderError> {
        if let Some(target) = contact(message)? {
            self.remote_target = target;
        }
        Ok(())
    }

    /// A request of the peer with this dialog's name arrived (s.12.2.2). ACK and CANCEL have the number of the INVITE
    /// and are always taken.
    ///
    /// # Errors
    /// It must not be processed; [`RequestRefused::status`] is the answer.
    pub fn accept(&mut self, request: &Message) -> Result<(), RequestRefused> {
        if self.state == DialogState::Terminated {
            return Err(RequestRefused::Ended);
        }
        let cseq = request.cseq()?;
        if !matches!(cseq.method, Method::Ack | Method::Cancel) {
            self.sequence.accept(cseq.number)?;
        }
        Ok(())
    }

    /// Notes that a request of ours was numbered outside of [`request`](Self::request).
    pub const fn note_local_number(&mut self, number: u32) {
        self.sequence.note_local(number);
    }

    /// The number of our latest request.
    #[must_use]
    pub const fn local_number(&self) -> u32 {
        self.sequence.local()
    }

    /// A new request in the dialog (s.12.2.1.1), numbered one higher than the last: start line, `via`, Max-Forwards,
    /// Route, From, To, Call-ID, CSeq. Contact and the rest are the caller's. Not for ACK and CANCEL.
    #[must_use]
    pub fn request(&mut self, method: &Method, via: impl AsRef<[u8]>, max_forwards: u8) -> MessageBuilder {
        let number = self.sequence.advance();
        self.build(method, number, via, max_forwards)
    }

    /// The ACK to a 2xx (s.13.2.2.4), whose INVITE was numbered `number`.
    #[must_use]
    pub fn ack(&self, number: u32, via: impl AsRef<[u8]>) -> MessageBuilder {
        self.build(&Method::Ack, number, via, MAX_FORWARDS)
    }

    fn build(&self, method: &Method, number: u32, via: impl AsRef<[u8]>, max_forwards: u8) -> MessageBuilder {
        let Addressing { request_uri, routes } = self.route_set.address(&self.remote_target);
        let mut message = MessageBuilder::request(method, &request_uri)
            .header(HeaderName::Via, via)
            .header(HeaderName::MaxForwards, max_forwards.to_string());
        for route in routes {
            message = message.header(HeaderName::Route, route);
        }
        message
            .header(HeaderName::From, &self.local)
            .header(HeaderName::To, &self.remote)
            .header(HeaderName::CallId, self.id.call_id.as_bytes())
            .header(HeaderName::CSeq, format!("{number} {method}"))
    }
}

/// The address in the one Contact that a message of a dialog has; `None` if it has none.
fn contact(message: &Message) -> Result<Option<Box<str>>, HeaderError> {
    let Some(contact) = message.contacts().next() else { return Ok(None) };
    let contact = contact?;
    let addr = contact.addr().ok_or(HeaderError::Malformed(HeaderName::Contact))?;
    Ok(Some(addr.uri().as_str().into()))
}

#[cfg(test)]
mod tests;
