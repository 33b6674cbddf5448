//! The guard inside the engine: whose messages and connections are heard, and what follows from a denial.

use bytes::Bytes;

use crate::command::{GuardOrder, Reply};
use crate::counter::Counter;
use crate::engine::Engine;
use crate::flow::Flow;
use crate::guard::{
    Denial, DenyReason, DenyScope, Evidence, GuardCommand, GuardEvent, Sender, Source, Verdict,
};
use crate::output::Output;
use crate::rng::Rng;
use crate::sip::{HeaderName, Judgement, Message, is_urgent, judge};
use crate::time::Now;

impl<R: Rng> Engine<R> {
    /// Whether a message is heard. Counts it against its source's limit, with all that may follow.
    pub(super) fn admits_message(&mut self, now: Now, flow: Flow, bytes: &[u8]) -> bool {
        let Some(sender) = self.sender(flow) else { return false };
        let urgent = is_urgent(bytes, &self.config.guard.emergency_numbers);
        let mut commands = Vec::new();
        let verdict = self.guard.on_message(now, sender, urgent, &mut commands);
        self.command_guard(now, commands);
        self.is_admitted(verdict)
    }

    /// Looks at what a stranger sent, for what speaks against him. Nothing is answered.
    pub(super) fn suspect(&mut self, now: Now, flow: Flow, bytes: Bytes) {
        let evidence = match Message::parse(bytes) {
            Err(_) => Evidence::Malformed,
            Ok(message) if self.is_of_scanner(&message) => Evidence::Scanner,
            Ok(message) => match judge(&message) {
                Judgement::Ok => return,
                Judgement::Answer { .. } | Judgement::Drop { .. } => Evidence::Malformed,
            },
        };
        self.counters.count(match evidence {
            Evidence::Malformed => Counter::Unparseable,
            Evidence::Scanner => Counter::Scanner,
        });
        self.on_evidence(now, flow, evidence);
    }

    /// Something speaks against a sender. A configured peer it does not harm.
    pub(super) fn on_evidence(&mut self, now: Now, flow: Flow, evidence: Evidence) {
        let Some(sender) = self.sender(flow) else { return };
        let mut commands = Vec::new();
        self.guard.on_evidence(now, sender, evidence, &mut commands);
        self.command_guard(now, commands);
    }

    fn is_of_scanner(&self, message: &Message) -> bool {
        let scanners = &self.config.guard.scanners;
        let agent = message.header(HeaderName::UserAgent).map(<[u8]>::to_ascii_lowercase);
        if agent.is_some_and(|agent| scanners.iter().any(|scanner| has_word(&agent, scanner.as_bytes()))) {
            return true;
        }
        // People have names as well: only one that is all of it is a scanner's.
        let Ok(from) = message.from() else { return false };
        let display = from.display().map(<[u8]>::trim_ascii);
        let user = from.uri().user().map(str::as_bytes);
        let named =
            |name: &[u8]| scanners.iter().any(|scanner| name.eq_ignore_ascii_case(scanner.as_bytes()));
        display.is_some_and(named) || user.is_some_and(named)
    }

    fn sender(&self, flow: Flow) -> Option<Sender> {
        let listener = self.config.listeners.get(usize::from(flow.listener.0))?;
        Some(Sender { realm: listener.realm, address: flow.remote.ip(), transport: flow.transport })
    }

    /// Whether a connection may stay open.
    pub(super) fn admits_connection(&mut self, flow: Flow) -> bool {
        let Some(sender) = self.sender(flow) else { return false };
        let verdict = self.guard.admits(sender);
        self.is_admitted(verdict)
    }

    pub(super) fn on_guard_event(&mut self, now: Now, event: GuardEvent) {
        let mut commands = Vec::new();
        self.guard.on_event(now, event, &mut commands);
        self.command_guard(now, commands);
    }

    pub(super) fn end_denials(&mut self, now: Now) {
        let mut commands = Vec::new();
        self.guard.on_timeout(now.mono, &mut commands);
        self.command_guard(now, commands);
    }

    pub(super) fn on_guard_order(&mut self, now: Now, order: &GuardOrder) -> Reply {
        let mut commands = Vec::new();
        let reply = match *order {
            GuardOrder::Denied => Reply::Denied(self.guard.denied()),
            GuardOrder::Undeny(source) => Reply::Changed(Ok(self.guard.undeny(Some(source), &mut commands))),
            GuardOrder::UndenyAll => Reply::Changed(Ok(self.guard.undeny(None, &mut commands))),
            GuardOrder::List(kind) => Reply::Listed(self.guard.list(kind).to_vec()),
            GuardOrder::Add(kind, prefix) => Reply::Changed(self.guard.add(kind, prefix).map(|changes| {
                commands.extend(changes);
                1
            })),
            GuardOrder::Remove(kind, prefix) => {
                Reply::Changed(self.guard.remove(kind, prefix).map(|changes| {
                    commands.extend(changes);
                    1
                }))
            }
        };
        self.command_guard(now, commands);
        reply
    }

    /// Hands on what the dataplane is to do, and closes the connections of those who are no longer heard.
    fn command_guard(&mut self, now: Now, commands: Vec<GuardCommand>) {
        for command in commands {
            let closed = match &command {
                GuardCommand::Deny(Denial { source, scope: DenyScope::All, .. }) => {
                    self.streams.of_peers(|peer| Source::of(peer) == *source)
                }
                GuardCommand::Block(prefix) => self.streams.of_peers(|peer| prefix.contains(peer)),
                GuardCommand::Configure(_)
                | GuardCommand::Trust(..)
                | GuardCommand::Distrust(..)
                | GuardCommand::Unblock(_)
                | GuardCommand::Deny(Denial { scope: DenyScope::Udp, .. })
                | GuardCommand::Undeny(_) => Vec::new(),
            };
            if let GuardCommand::Deny(denial) = &command {
                self.counters.count(match denial.reason {
                    DenyReason::Flood => Counter::DeniedFlood,
                    DenyReason::Malformed => Counter::DeniedMalformed,
                    DenyReason::Scanner => Counter::DeniedScanner,
                });
            }
            tracing::debug!(?command, "guard");
            self.outputs.push_back(Output::Guard(command));
            for conn in closed {
                self.counters.count(Counter::GuardClosed);
                self.outputs.push_back(Output::Close { conn });
                self.on_stream_closed(now, conn);
            }
        }
    }

    fn is_admitted(&mut self, verdict: Verdict) -> bool {
        self.counters.count(match verdict {
            Verdict::Admit => return true,
            Verdict::Blocked => Counter::GuardBlocked,
            Verdict::Denied => Counter::GuardDenied,
            Verdict::NotAllowed => Counter::GuardNotAllowed,
            Verdict::OverLimit => Counter::GuardOverLimit,
        });
        false
    }
}

/// Whether a text has a word, not as a part of a longer one.
fn has_word(text: &[u8], word: &[u8]) -> bool {
    let goes_on = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    memchr::memmem::find_iter(text, word).any(|at| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        !goes_on(before) && !goes_on(text.get(at + word.len()))
    })
}
