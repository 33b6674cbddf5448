//! How media is exchanged with a trunk: its own keys, else its realm's, else the defaults.

use sbc_core::config::{Learning, MediaSourceRule, TrunkMedia};

use super::super::diagnostic::Problems;
use super::super::schema::RulesSection;
use super::super::table::At;
use super::DraftRealm;

pub(super) fn validate(own: &RulesSection, realm: &DraftRealm<'_>, problems: &Problems) -> TrunkMedia {
    let of_realm = &realm.section.rules;
    let source = own.media_source.as_ref().or(of_realm.media_source.as_ref());
    let rule = source.map_or(MediaSourceRule::Signalled, |at| at.value);
    let learning = Learning {
        window: seconds(&own.latch_seconds, &of_realm.latch_seconds).map_or(Learning::WINDOW, duration),
        relatch: match seconds(&own.relatch_seconds, &of_realm.relatch_seconds) {
            Some(0) => None,
            Some(seconds) => Some(duration(seconds)),
            // Where anybody may claim, somebody could wait for the silence: only by order.
            None => (rule != MediaSourceRule::Any).then_some(Learning::RELATCH),
        },
    };
    check(own, rule, problems);
    check_family(source, realm, problems);
    let rtcp_mux =
        own.rtcp_mux.as_ref().or(of_realm.rtcp_mux.as_ref()).map_or_else(Default::default, |at| at.value);
    // Whoever is learned sits behind something that forgets.
    let learned = (rule != MediaSourceRule::Signalled).then_some(TrunkMedia::PRIME);
    let prime = match seconds(&own.prime_seconds, &of_realm.prime_seconds) {
        Some(seconds) => (seconds > 0).then_some(duration(seconds)),
        None => learned,
    };
    TrunkMedia { source: rule, learning, rtcp_mux, prime }
}

fn seconds(own: &Option<At<u32>>, of_realm: &Option<At<u32>>) -> Option<u32> {
    own.as_ref().or(of_realm.as_ref()).map(|at| at.value)
}

fn duration(seconds: u32) -> std::time::Duration {
    std::time::Duration::from_secs(seconds.into())
}

fn check(own: &RulesSection, rule: MediaSourceRule, problems: &Problems) {
    if rule == MediaSourceRule::Signalled {
        for at in [&own.latch_seconds, &own.relatch_seconds].into_iter().flatten() {
            let error = at.error("has no meaning where media is accepted from the signalled place only");
            problems.add(error.allowed("only beside another `media_source`"));
        }
    }
    if let Some(at) = own.relatch_seconds.as_ref()
        && (1..Learning::RELATCH.as_secs()).contains(&u64::from(at.value))
    {
        let warning =
            at.warning("a phone that sends nothing but RTCP while nobody speaks could be taken for gone");
        problems.add(warning.allowed(format!("0 (never), or {} to 3600", Learning::RELATCH.as_secs())));
    }
}

/// Whoever may claim is named by the address of the signalling, and claims with media.
fn check_family(source: Option<&At<MediaSourceRule>>, realm: &DraftRealm<'_>, problems: &Problems) {
    let (Some(source), Some(bind)) = (source, &realm.section.bind) else { return };
    let by_signalling = match source.value {
        MediaSourceRule::Address | MediaSourceRule::Subnet => true,
        MediaSourceRule::Signalled | MediaSourceRule::SdpSubnet | MediaSourceRule::Any => false,
    };
    if by_signalling && bind.value.is_ipv4() != realm.realm.media.bind.is_ipv4() {
        let error = source.error(format!(
            "signalling at {} and media at {} are of two families: nobody could be learned",
            bind.value, realm.realm.media.bind
        ));
        problems.add(error.allowed("\"signalled\", \"sdp-subnet\" or \"any\""));
    }
}
