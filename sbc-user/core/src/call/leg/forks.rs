//! The dialogs of an INVITE that was forked (RFC 3261 s.12.1, s.13.2.2.4): the last provisional response decides whom the
//! call follows, the first 2xx whom it keeps; every further 2xx is acknowledged and ended at once.
//!
//! Design trade-off: towards the caller all forks are one dialog. Its description may then change between a provisional
//! response and the 2xx, in its codecs only, because address and ports stay ours. Several early dialogs there would tell
//! the caller how many machines ring on the other side.

use crate::call::action::{Effect, Purpose};
use crate::call::context::Context;
use crate::call::leg::{Leg, is_of};
use crate::counter::Counter;
use crate::dialog::{Dialog, DialogId, MAX_FORWARDS};
use crate::rng::Rng;
use crate::sip::{Message, Method};

/// Early dialogs of one INVITE that are followed; provisional responses of further forks are ignored.
const MOST_FORKS: usize = 8;

impl Leg {
    pub(super) fn dialog_of(&mut self, request: &Message) -> Option<&mut Dialog> {
        let id = DialogId::of_request(request)?;
        let in_force = self.dialog.as_ref().is_some_and(|dialog| *dialog.id() == id);
        if in_force {
            return self.dialog.as_mut();
        }
        self.forks.iter_mut().find(|dialog| *dialog.id() == id)
    }

    /// Puts the dialog in force back among the forks: its numbers have gone on since it was taken from there.
    fn park(&mut self) {
        if let Some(dialog) = &self.dialog
            && let Some(fork) = self.forks.iter_mut().find(|fork| fork.id() == dialog.id())
        {
            fork.clone_from(dialog);
        }
    }

    /// A provisional response: its dialog is the one in force from now on. False: one fork too many.
    pub(super) fn follow<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        request: &Message,
        response: &Message,
    ) -> bool {
        if response.to().is_ok_and(|to| to.tag().is_none()) {
            return true;
        }
        self.park();
        if let Some(dialog) = self.forks.iter().find(|dialog| is_of(response, dialog.id())) {
            self.dialog = Some(dialog.clone());
            return true;
        }
        let Ok(dialog) = Dialog::of_caller(request, response) else {
            cx.effects.push(Effect::Count(Counter::MalformedResponse));
            return false;
        };
        if self.forks.len() >= MOST_FORKS {
            cx.effects.push(Effect::Count(Counter::ForkIgnored));
            return false;
        }
        self.forks.push(dialog.clone());
        self.dialog = Some(dialog);
        true
    }

    /// The 2xx decides which dialog is the call's.
    pub(super) fn confirm<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        request: &Message,
        response: &Message,
    ) -> Option<()> {
        self.park();
        let early = self.forks.iter().position(|dialog| is_of(response, dialog.id()));
        let dialog = match early.map(|index| self.forks.swap_remove(index)) {
            Some(mut dialog) => dialog.confirm(response).map(|()| dialog),
            None => Dialog::of_caller(request, response),
        };
        let Ok(dialog) = dialog else {
            // Without a dialog there is nothing to acknowledge; the callee will give up.
            cx.effects.push(Effect::Count(Counter::MalformedResponse));
            return None;
        };
        self.dialog = Some(dialog);
        self.forks.clear();
        Some(())
    }

    /// A second 2xx of a forked INVITE: acknowledged and ended at once (RFC 3261 s.13.2.2.4); its copies are only
    /// acknowledged.
    pub(super) fn end_second_answer<R: Rng>(
        &mut self,
        cx: &mut Context<'_, R>,
        request: &Message,
        response: &Message,
    ) {
        let Ok(mut dialog) = Dialog::of_caller(request, response) else {
            cx.effects.push(Effect::Count(Counter::MalformedResponse));
            return;
        };
        let Ok(number) = request.cseq().map(|cseq| cseq.number) else { return };
        let copy = self.ended_forks.contains(dialog.id());
        if !copy && self.ended_forks.len() >= MOST_FORKS {
            cx.effects.push(Effect::Count(Counter::ForkIgnored));
            return;
        }
        let flow = self.path_of(cx, Some(&dialog));
        let via = self.via(&cx.origin.branch(cx.rng));
        let ack = dialog.ack(number, via).build();
        cx.effects.push(Effect::Ack { flow, bytes: ack });
        if copy {
            return;
        }
        self.ended_forks.push(dialog.id().clone());
        let branch = cx.origin.branch(cx.rng);
        let bye = dialog.request(&Method::Bye, self.via(&branch), MAX_FORWARDS).build();
        cx.effects.push(Effect::Request {
            purpose: Purpose::Nothing,
            method: Method::Bye,
            branch,
            flow,
            bytes: bye,
        });
        cx.effects.push(Effect::Count(Counter::ForkEnded));
    }
}
