//! What every dataplane does alike: one suite for the kernel, the relay and the fake.
//!
//! A behaviour that the engine relies on has its case here. What a case needs of the world around the dataplane is a
//! [`Wire`].

mod bench;
mod cases;
mod counting;
mod learning;
mod priming;
mod reports;
mod shared_port;

use std::net::{IpAddr, SocketAddr};

use sbc_common::counter::Counter;
use sbc_core::media::plan::Placement;

use super::Dataplane;

/// A dataplane and the networks on both of its sides.
pub trait Wire {
    /// What is under test, without plans at first.
    fn dataplane(&mut self) -> &mut dyn Dataplane;

    /// The addresses that a case may use.
    fn addresses(&self) -> Addresses;

    /// What must carry every stream.
    fn placement(&self) -> Placement;

    /// Sends a datagram to a port of ours. What leaves for it, if anything does.
    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Option<Datagram>;

    /// Datagrams that left of themselves, since they were last asked for: as many as are said, or those that there are
    /// when no more come.
    fn sent(&mut self, count: usize) -> Vec<Datagram>;

    /// How often a datagram had this outcome since the wire was made.
    fn outcome(&self, counter: Counter) -> u64;
}

/// A datagram on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Its source.
    pub from: SocketAddr,
    /// Its destination.
    pub to: SocketAddr,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// Addresses of a wire; those of a side are of one family.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Ours on the caller's side.
    pub caller_local: IpAddr,
    /// Ours on the callee's side.
    pub callee_local: IpAddr,
    /// The caller's.
    pub caller: IpAddr,
    /// The callee's.
    pub callee: IpAddr,
    /// Somebody else's, of the caller's family.
    pub stranger: IpAddr,
}

/// A case: its name, and what it does with a fresh wire.
pub type Case = (&'static str, fn(&mut dyn Wire));

/// Every case.
pub const CASES: &[Case] = &[
    ("each command is answered once and in order", cases::each_command_is_answered_once_and_in_order),
    ("packets flow both ways", cases::packets_flow_both_ways),
    ("a wrong source is refused", cases::a_wrong_source_is_refused),
    ("a side without a signalled peer is closed", cases::a_side_without_a_signalled_peer_is_closed),
    ("a learning side is claimed once", cases::a_learning_side_is_claimed_once),
    ("a learning side needs no signalled peer", cases::a_learning_side_needs_no_signalled_peer),
    (
        "what is not media is dropped and claims nothing",
        cases::what_is_not_media_is_dropped_and_claims_nothing,
    ),
    ("a new peer replaces the old one", cases::a_new_peer_replaces_the_old_one),
    ("an unchanged side keeps its latch", cases::an_unchanged_side_keeps_its_latch),
    ("another opening learns again", cases::another_opening_learns_again),
    ("new ports replace the old ones", cases::new_ports_replace_the_old_ones),
    ("counters outlive an update", cases::counters_outlive_an_update),
    ("an observation shows what was carried", cases::an_observation_shows_what_was_carried),
    ("remove may be repeated", cases::remove_may_be_repeated),
    ("a taken port leaves nothing of the plan", cases::a_taken_port_leaves_nothing_of_the_plan),
    ("a failed update leaves the old plan", cases::a_failed_update_leaves_the_old_plan),
    ("a plan that leads to itself is refused", cases::a_plan_that_leads_to_itself_is_refused),
    ("the snapshot names the calls", cases::the_snapshot_names_the_calls),
    ("a prefix may claim and nobody else", learning::a_prefix_may_claim_and_nobody_else),
    ("whoever claims is answered", learning::whoever_claims_is_answered),
    ("a closed window keeps who claimed", learning::a_closed_window_keeps_who_claimed),
    ("a closed window lets nobody claim", learning::a_closed_window_lets_nobody_claim),
    ("a window opened anew is claimed anew", learning::a_window_opened_anew_is_claimed_anew),
    ("a moved peer keeps the claim of its opening", learning::a_moved_peer_keeps_the_claim_of_its_opening),
    ("late packets of an old call stay out", learning::late_packets_of_an_old_call_stay_out),
    ("two shared ports meet", shared_port::on_both_sides_everything_takes_the_even_ports),
    ("a shared port meets two ports", shared_port::on_one_side_the_other_has_two_ports),
    ("a claim of a shared port is for both", shared_port::a_claim_of_it_is_for_both),
    ("a port may be shared from the answer on", shared_port::it_may_begin_with_the_answer),
    ("loss and order are told", counting::loss_and_order_are_told),
    ("changes of source and payload type are told", counting::changes_of_source_and_payload_type_are_told),
    ("jitter needs a clock", counting::jitter_needs_a_clock),
    ("more than a stream may carry is dropped", counting::more_than_a_stream_may_carry_is_dropped),
    ("of RTCP that is forwarded there are copies", reports::of_what_is_forwarded_there_are_copies),
    ("of RTCP on a shared port there are copies", reports::of_a_shared_port_there_are_copies),
    ("priming reaches a signalled peer", priming::it_reaches_a_signalled_peer),
    ("priming reaches whoever claimed a side", priming::it_reaches_whoever_claimed_a_side),
    ("priming a shared port uses that port", priming::of_a_shared_port_it_uses_that_port),
    ("priming without a peer sends nothing", priming::without_a_peer_it_sends_nothing),
];

/// Every port of the caller's and the callee's address to which a case may expect something to be sent, but for those
/// from which it has sent before.
pub const PEER_PORTS: std::ops::Range<u16> = bench::CALLER..bench::CALLEE + 52;
