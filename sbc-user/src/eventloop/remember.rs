//! What of the loop's traffic is to be known after a restart: seen as it passes, handed to the journal.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::SystemTime;

use sbc_core::command::{Command, GuardOrder, Reply};
use sbc_core::guard::{Denial, Denied, GuardCommand};
use sbc_core::id::{CallId, OpId};
use sbc_core::media::command::MediaCommand;
use sbc_core::media::plan::MediaPlan;
use sbc_core::restart::{CallCheckpoint, ListChange};

use crate::dataplane::MediaCheckpoint;
use crate::store::{Change, Gone, Journal};

/// See the module.
#[derive(Debug)]
pub(super) struct Remember {
    journal: Journal,
    /// Commands whose answer changes what is to be known.
    media: HashMap<OpId, Asked>,
    /// Even ports that each call with a plan has or had.
    ports: HashMap<CallId, BTreeSet<SocketAddr>>,
    /// Orders to lists that are not answered yet.
    orders: HashMap<OpId, ListChange>,
}

#[derive(Debug)]
enum Asked {
    Install(CallId),
    Remove(CallId),
}

impl Remember {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal, media: HashMap::new(), ports: HashMap::new(), orders: HashMap::new() }
    }

    /// Changes that could not be kept.
    pub(super) fn lost(&self) -> u64 {
        self.journal.lost()
    }

    /// A plan that was taken over from a daemon before.
    pub(super) fn taken_over(&mut self, plan: &MediaPlan) {
        self.ports.entry(plan.call).or_default().extend(even_ports(plan));
    }

    /// The dataplane is commanded.
    pub(super) fn commanded(&mut self, op: OpId, command: &MediaCommand) {
        match command {
            MediaCommand::Install(plan) => {
                self.ports.entry(plan.call).or_default().extend(even_ports(plan));
                self.media.insert(op, Asked::Install(plan.call));
            }
            MediaCommand::Remove(call) => {
                self.media.insert(op, Asked::Remove(*call));
            }
            MediaCommand::Observe(_) | MediaCommand::Prime { .. } => {}
        }
    }

    /// The dataplane has answered; `checkpoint` tells what is in force now.
    pub(super) fn done(
        &mut self,
        op: OpId,
        carried_out: bool,
        checkpoint: impl FnOnce(CallId) -> Option<MediaCheckpoint>,
    ) {
        match self.media.remove(&op) {
            Some(Asked::Install(call)) if carried_out => {
                if let Some(checkpoint) = checkpoint(call) {
                    self.journal.note(Change::Media(Box::new(checkpoint)));
                }
            }
            Some(Asked::Remove(call)) => {
                let ports = self.ports.remove(&call).unwrap_or_default().into_iter().collect();
                self.journal.note(Change::Gone(Gone { call, ports, since: SystemTime::now() }));
            }
            Some(Asked::Install(_)) | None => {}
        }
    }

    pub(super) fn checkpoint(&self, checkpoint: CallCheckpoint) {
        self.journal.note(Change::Call(Box::new(checkpoint)));
    }

    /// The dataplane's guard is commanded.
    pub(super) fn guarded(&self, command: &GuardCommand) {
        match *command {
            GuardCommand::Deny(Denial { source, scope, reason, since, lasts }) => {
                let until = lasts.and_then(|lasts| SystemTime::now().checked_add(lasts));
                self.journal.note(Change::Denied(Denied { source, reason, scope, since, until }));
            }
            GuardCommand::Undeny(source) => self.journal.note(Change::Undenied(source)),
            // The lists are kept as operators change them.
            GuardCommand::Configure(_)
            | GuardCommand::Trust(..)
            | GuardCommand::Distrust(..)
            | GuardCommand::Block(_)
            | GuardCommand::Unblock(_) => {}
        }
    }

    /// An operator orders something.
    pub(super) fn ordered(&mut self, op: OpId, command: &Command) {
        let change = match *command {
            Command::Guard(GuardOrder::Add(list, prefix)) => ListChange { list, prefix, listed: true },
            Command::Guard(GuardOrder::Remove(list, prefix)) => ListChange { list, prefix, listed: false },
            Command::Guard(
                GuardOrder::Denied | GuardOrder::Undeny(_) | GuardOrder::UndenyAll | GuardOrder::List(_),
            )
            | Command::Status
            | Command::Calls
            | Command::Drain
            | Command::HangUpAll => return,
        };
        self.orders.insert(op, change);
    }

    /// An operator is answered.
    pub(super) fn answered(&mut self, op: OpId, reply: &Reply) {
        if let Some(change) = self.orders.remove(&op)
            && matches!(reply, Reply::Changed(Ok(_)))
        {
            self.journal.note(Change::Listed(change));
        }
    }
}

fn even_ports(plan: &MediaPlan) -> impl Iterator<Item = SocketAddr> {
    let sides = plan.streams.iter().flat_map(|stream| [&stream.caller, &stream.callee]);
    sides.map(|side| SocketAddr::new(side.local_ip, side.local_rtp_port))
}
