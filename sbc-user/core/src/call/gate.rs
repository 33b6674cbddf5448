//! The order between media and messages: what must not leave before a plan is in force waits here, and everything
//! after it waits behind it.
//!
//! Each entry is one thing to do, with the operation that it waits for, if any. Entries run in order, so a 180 cannot
//! overtake the 183 whose media is still being installed.

use std::collections::VecDeque;

use crate::call::action::Effect;
use crate::call::context::Context;
use crate::call::event::{Body, Content, Said};
use crate::id::OpId;
use crate::media::command::{MediaCommand, MediaResult};
use crate::media::plan::{MediaPlan, Placement};
use crate::policy::admission::Saying;

/// What to do when the media is in force.
#[derive(Debug)]
pub(super) enum Then {
    /// Call the callee.
    Place(Content),
    /// Relay a provisional response.
    Progress(Said),
    /// Acknowledge the callee, answer the caller.
    Connect(Said),
    /// Give the caller the callee's offer.
    ConnectLate(Said),
    /// Give the callee the caller's answer, in its ACK.
    AcknowledgeLate(Body),
    /// Ask the other side for the change.
    Ask(Content),
    /// Acknowledge the one asked, answer the asker.
    Agree(Said),
    /// Give the asker the offer of the one asked.
    OfferBack(Said),
    /// Give the one asked the asker's answer, in its ACK.
    AcknowledgeChange(Body),
    /// What held before holds again: refuse the change.
    Refuse(Said, Option<Saying>),
    /// No message waits for it.
    Nothing,
}

#[derive(Debug)]
struct Entry {
    op: Option<OpId>,
    plan: Option<MediaPlan>,
    failed: bool,
    then: Then,
}

/// Things to do in order, and the plan in force.
#[derive(Debug, Default)]
pub(super) struct Gate {
    entries: VecDeque<Entry>,
    /// The plan last asked for; what is in force unless an operation is under way.
    asked: Option<MediaPlan>,
    in_force: Option<MediaPlan>,
    placements: Vec<Placement>,
}

impl Gate {
    /// `then` waits for `plan` to be in force, and for everything before it.
    pub(super) fn install<R>(&mut self, cx: &mut Context<'_, R>, plan: MediaPlan, then: Then) {
        let nothing = self.asked.is_none() && plan.streams.is_empty();
        if nothing || self.asked.as_ref() == Some(&plan) {
            return self.follow(then);
        }
        let op = cx.next_op();
        cx.effects.push(Effect::Media(op, MediaCommand::Install(plan.clone())));
        self.asked = Some(plan.clone());
        self.entries.push_back(Entry { op: Some(op), plan: Some(plan), failed: false, then });
    }

    /// `then` waits only for everything before it.
    pub(super) fn follow(&mut self, then: Then) {
        self.entries.push_back(Entry { op: None, plan: None, failed: false, then });
    }

    /// The dataplane has answered; whether this gate had asked.
    pub(super) fn on_result(&mut self, op: OpId, result: &MediaResult) -> bool {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.op == Some(op)) else { return false };
        entry.op = None;
        match result {
            Ok(done) => {
                self.in_force = entry.plan.take();
                self.placements.clone_from(&done.placements);
            }
            Err(_) => {
                entry.failed = true;
                // Nothing of the command took effect.
                self.asked.clone_from(&self.in_force);
            }
        }
        true
    }

    /// The next thing that waits for nothing any more, and whether its media could be had.
    pub(super) fn next(&mut self) -> Option<(Then, bool)> {
        if self.entries.front()?.op.is_some() {
            return None;
        }
        self.entries.pop_front().map(|entry| (entry.then, !entry.failed))
    }

    /// Forgets everything that waits; whether the dataplane was ever asked for a plan.
    pub(super) fn close(&mut self) -> bool {
        self.entries.clear();
        self.asked.is_some()
    }

    /// The plan in force and what carries it.
    pub(super) fn in_force(&self) -> (Option<&MediaPlan>, &[Placement]) {
        (self.in_force.as_ref(), &self.placements)
    }
}
