//! The guard inside the engine: whose messages and connections are heard, and what follows from a denial.

use crate::command::{GuardOrder, Reply};
use crate::counter::Counter;
use crate::engine::Engine;
use crate::flow::Flow;
use crate::guard::{DenyScope, GuardCommand, GuardEvent, Source, Verdict};
use crate::output::Output;
use crate::rng::Rng;
use crate::time::Now;

impl<R: Rng> Engine<R> {
    /// Whether a message is heard. Counts it against its source's limit, with all that may follow.
    pub(super) fn admits_message(&mut self, now: Now, flow: Flow) -> bool {
        let mut commands = Vec::new();
        let verdict = self.guard.on_message(now, flow.remote.ip(), flow.transport, &mut commands);
        self.command_guard(now, commands);
        self.is_admitted(verdict)
    }

    /// Whether a connection may stay open.
    pub(super) fn admits_connection(&mut self, flow: Flow) -> bool {
        let verdict = self.guard.admits(flow.remote.ip(), flow.transport);
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
            GuardOrder::Add(kind, prefix) => Reply::Changed(self.guard.add(kind, prefix).map(|command| {
                commands.push(command);
                1
            })),
            GuardOrder::Remove(kind, prefix) => {
                Reply::Changed(self.guard.remove(kind, prefix).map(|command| {
                    commands.extend(command);
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
                GuardCommand::Deny { source, scope: DenyScope::All, .. } => {
                    self.streams.of_peers(|peer| Source::of(peer) == *source)
                }
                GuardCommand::Block(prefix) => self.streams.of_peers(|peer| prefix.contains(peer)),
                GuardCommand::Configure(_)
                | GuardCommand::Trust(_)
                | GuardCommand::Distrust(_)
                | GuardCommand::Unblock(_)
                | GuardCommand::Deny { scope: DenyScope::Udp, .. }
                | GuardCommand::Undeny(_) => Vec::new(),
            };
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
