//! The admin socket, with a loop behind it that answers from values.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use hyper::Method;
use sbc_core::command::{CallState, GuardOrder, LegView};
use sbc_core::flow::Transport;
use sbc_core::guard::{DenyReason, DenyScope, ListKind, Source};
use sbc_core::id::{CallId, RealmId};
use sbc_core::media::command::DirectionCounters;
use sbc_core::media::plan::{
    MediaPace, MediaPlan, PeerMedia, Placement, SourcePolicy, StreamPlan, StreamSide,
};
use sbc_core::media::quality::{Heard, StreamQuality};

use super::dto::{Calls, Facts, Status};
use super::server::Server;
use super::*;
use crate::trace::{Ends, Target, TracedLine, TracedPacket};

struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("sbc-admin-{}-{number}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("run/sbcd.sock")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn facts() -> Facts {
    Facts {
        instance: "test".to_owned(),
        started: Instant::now(),
        listeners: Vec::new(),
        media_addresses: Vec::new(),
    }
}

fn leg(realm: &str, remote: &str) -> LegView {
    LegView {
        realm: realm.to_owned(),
        trunk: realm.to_owned(),
        transport: Transport::Udp,
        remote: remote.parse().unwrap(),
        sip_call_id: format!("{realm}@call"),
        from: "sip:100@example".to_owned(),
        to: "sip:200@example".to_owned(),
    }
}

/// The callee has reported something.
fn quality() -> StreamQuality {
    let heard = Heard {
        reports: 2,
        lost: 3,
        fraction_lost: 2,
        fraction_lost_max: 26,
        jitter_us: Some(3200),
        round_trip_us: Some(40_400),
        ..Heard::default()
    };
    let mut quality = StreamQuality::default();
    quality.callee.heard = Some(heard);
    quality
}

pub(crate) fn call() -> (CallView, Vec<StreamCounters>) {
    let side = |realm, ip: [u8; 4], port, peer: Option<&str>, source| StreamSide {
        realm: RealmId(realm),
        local_ip: ip.into(),
        local_rtp_port: port,
        peer: peer.map(|peer| PeerMedia { rtp: peer.parse().unwrap(), rtcp: peer.parse().unwrap() }),
        source,
        dscp: 46,
        rtcp_mux: false,
        pace: MediaPace::default(),
    };
    let learn = SourcePolicy::learn_from([192, 0, 2, 7].into());
    let stream = StreamPlan {
        mline: 0,
        caller: side(0, [198, 51, 100, 10], 20_000, Some("192.0.2.7:40000"), learn),
        callee: side(1, [10, 0, 0, 5], 24_000, None, SourcePolicy::Signalled),
    };
    let view = CallView {
        call: CallId(7),
        state: CallState::Answered,
        began: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        answered: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_003)),
        caller: leg("public", "192.0.2.7:5060"),
        callee: leg("private", "10.0.0.20:5060"),
        plan: Some(MediaPlan { call: CallId(7), streams: vec![stream] }),
        placements: vec![Placement::Kernel],
        quality: vec![quality()],
    };
    let direction = |rtp_kernel, lost| DirectionCounters {
        rtp_kernel,
        rtp_bytes: rtp_kernel * 172,
        rtcp: 2,
        lost,
        jitter_us: lost.map(|_| 1900),
        over_rate: lost.map_or(4, |_| 0),
        ..DirectionCounters::default()
    };
    let counters = StreamCounters {
        mline: 0,
        placement: Some(Placement::Kernel),
        from_caller: direction(500, Some(1)),
        from_callee: direction(498, None),
    };
    (view, vec![counters])
}

fn guard_answer(order: GuardOrder) -> Answer {
    let source = |text: &str| Source::of(text.parse().unwrap());
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let denied =
        |text, scope, until| Denied { source: source(text), reason: DenyReason::Flood, scope, since, until };
    match order {
        GuardOrder::Denied => Answer::Denied(vec![
            (denied("203.0.113.5", DenyScope::Udp, Some(since + Duration::from_secs(3600))), 77),
            (denied("2001:db8:7::9", DenyScope::All, None), 0),
        ]),
        GuardOrder::Undeny(wanted) => Answer::Changed(Ok(usize::from(wanted == source("2001:db8:7::1")))),
        GuardOrder::UndenyAll => Answer::Changed(Ok(2)),
        GuardOrder::List(_) => Answer::Listed(vec![
            Prefix { addr: [192, 0, 2, 0].into(), len: 24 },
            Prefix { addr: [203, 0, 113, 9].into(), len: 32 },
        ]),
        GuardOrder::Add(ListKind::Allow, _) => Answer::Changed(Err(ListRefusal::Full { max: 100 })),
        GuardOrder::Remove(ListKind::Allow, _) => Answer::Changed(Err(ListRefusal::Absent)),
        GuardOrder::Add(ListKind::Block, _) | GuardOrder::Remove(ListKind::Block, _) => {
            Answer::Changed(Ok(1))
        }
    }
}

/// Answers questions like the event loop, until nobody can ask any more.
/// As a dataplane that has told of one packet so far.
fn trace_answer(order: TraceOrder) -> Result<TraceView, String> {
    let ends = |from: &str, to: &str| Ends {
        from: from.parse().unwrap(),
        to: to.parse().unwrap(),
        frame_bytes: 214,
    };
    let packet = TracedPacket {
        outcome: "forward_other",
        ifindex: 3,
        arrived: ends("203.0.113.5:4000", "[2001:db8::1]:20000"),
        left: Some(ends("198.51.100.1:20002", "198.51.100.9:5000")),
    };
    let line = TracedLine { number: 7, heard: SystemTime::UNIX_EPOCH, packet };
    let view = TraceView { last: 7, suppressed: 2, ..TraceView::default() };
    match order {
        TraceOrder::Begin { target: Target::Source(_), .. } => Err("nothing to trace".to_owned()),
        TraceOrder::Begin { target, lasts } => {
            Ok(TraceView { running: Some((target, SystemTime::UNIX_EPOCH + lasts)), ..view })
        }
        TraceOrder::Show { after } if after < 7 => Ok(TraceView { lines: vec![line], ..view }),
        TraceOrder::End | TraceOrder::Show { .. } => Ok(view),
    }
}

#[tokio::test]
async fn a_trace_is_begun_shown_and_ended_over_the_socket() {
    let place = Place::new();
    let (asker, questions) = Asker::new();
    answer(questions);
    let server = Server::start(&place.socket(), facts(), asker).unwrap();
    let socket = place.socket();
    let order = |method, resource: &'static str| {
        let socket = socket.clone();
        async move { client::order::<dto::Trace>(&socket, method, resource).await }
    };
    let begun = order(Method::PUT, "/v1/trace/flow/%5B2001:db8::1%5D:20000/60").await.unwrap();
    assert_eq!(begun.target.as_deref(), Some("flow [2001:db8::1]:20000"));
    assert_eq!(begun.until.as_deref(), Some("1970-01-01T00:01:00.000Z"));
    let shown = order(Method::GET, "/v1/trace").await.unwrap();
    let packet = &shown.packets[0];
    assert_eq!((packet.number, packet.to.as_str()), (7, "[2001:db8::1]:20000"));
    assert_eq!(packet.left.as_ref().unwrap().to, "198.51.100.9:5000");
    let later = order(Method::GET, "/v1/trace/after/7").await.unwrap();
    assert_eq!((later.packets.len(), later.suppressed, later.target), (0, 2, None));
    assert!(order(Method::DELETE, "/v1/trace").await.is_ok());
    for (resource, said) in [
        ("/v1/trace/source/203.0.113.5/60", "nothing to trace"),
        ("/v1/trace/source/203.0.113/60", "\"203.0.113\" is no address"),
        ("/v1/trace/flow/203.0.113.5/60", "\"203.0.113.5\" is no address and port"),
        ("/v1/trace/flow/203.0.113.5:1/3601", "a trace lasts 1 to 3600 seconds"),
        ("/v1/trace/flow/203.0.113.5:1/0", "a trace lasts 1 to 3600 seconds"),
    ] {
        let refused = order(Method::PUT, resource).await.unwrap_err();
        assert_eq!(refused.to_string(), said, "{resource}");
    }
    server.stop().await;
}

fn answer(mut questions: mpsc::Receiver<Question>) {
    tokio::spawn(async move {
        while let Some(question) = questions.recv().await {
            let command = match question.request {
                Request::Engine(command) => command,
                Request::Trace(order) => {
                    let _ = question.answer.send(Answer::Traced(trace_answer(order)));
                    continue;
                }
                Request::Reconcile => continue,
            };
            let answer = match command {
                Command::Status => Answer::Status {
                    engine: EngineStatus {
                        calls: 3,
                        max_calls: 10,
                        counters: vec![("loop", 4)],
                        ..EngineStatus::default()
                    },
                    shell: ShellStatus {
                        connections: 5,
                        dataplane: vec![("wrong source", 6)],
                        relay_streams: vec![("no_route", 7)],
                        ..ShellStatus::default()
                    },
                },
                Command::Calls => Answer::Calls(vec![call()]),
                Command::Drain | Command::HangUpAll => Answer::Accepted { calls: 3 },
                Command::Guard(order) => guard_answer(order),
            };
            let _ = question.answer.send(answer);
        }
    });
}

#[tokio::test]
async fn status_and_calls_are_told_over_the_socket() {
    let place = Place::new();
    let (asker, questions) = Asker::new();
    answer(questions);
    let server = Server::start(&place.socket(), facts(), asker).unwrap();
    let mode = std::fs::metadata(place.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    let status: Status = client::get(&place.socket(), "/v1/status").await.unwrap();
    assert_eq!(
        (status.schema, status.state.as_str(), status.calls, status.connections),
        (1, "serving", 3, 5)
    );
    assert_eq!(status.engine_counters["loop"], 4);
    assert_eq!(status.dataplane_counters["wrong source"], 6);
    assert_eq!(status.relay_streams["no_route"], 7);

    let calls: Calls = client::get(&place.socket(), "/v1/calls").await.unwrap();
    let call = &calls.calls[0];
    assert_eq!(
        (call.call, call.state.as_str(), call.began.as_str()),
        (7, "answered", "2023-11-14T22:13:20.000Z")
    );
    let stream = &call.streams[0];
    assert_eq!(stream.path.as_deref(), Some("kernel"));
    assert_eq!((stream.from_caller.rtp_kernel, stream.from_caller.lost), (500, Some(1)));
    assert_eq!((stream.from_callee.rtp_kernel, stream.from_callee.lost), (498, None));
    assert_eq!(stream.caller.source, "learned from 192.0.2.7");
    assert_eq!(stream.callee.peer, None);

    let unknown = client::get::<Status>(&place.socket(), "/v1/nothing").await.unwrap_err();
    assert_eq!(unknown.to_string(), "there is no such resource");

    server.stop().await;
    assert!(!place.socket().exists());
}

#[tokio::test]
async fn a_daemon_that_is_stopping_says_so() {
    let place = Place::new();
    let (asker, questions) = Asker::new();
    let _server = Server::start(&place.socket(), facts(), asker).unwrap();
    drop(questions);
    let error = client::get::<Status>(&place.socket(), "/v1/status").await.unwrap_err();
    assert_eq!(error.to_string(), "the daemon is stopping");
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
    let place = Place::new();
    std::fs::create_dir(place.0.join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
    assert!(place.socket().exists());
    let (asker, questions) = Asker::new();
    answer(questions);
    let server = Server::start(&place.socket(), facts(), asker.clone()).unwrap();
    let error = Server::start(&place.socket(), facts(), asker).unwrap_err();
    assert!(format!("{error:#}").contains("another daemon answers"), "{error:#}");
    client::get::<Status>(&place.socket(), "/v1/status").await.unwrap();
    server.stop().await;

    std::fs::write(place.socket(), "not a socket").unwrap();
    let (asker, _questions) = Asker::new();
    let error = Server::start(&place.socket(), facts(), asker).unwrap_err();
    assert!(format!("{error:#}").contains("something else"), "{error:#}");
    assert!(place.socket().exists(), "what is not ours stays");
}

#[tokio::test]
async fn nobody_there_is_explained() {
    let place = Place::new();
    let error = client::get::<Status>(&place.socket(), "/v1/status").await.unwrap_err();
    assert!(error.to_string().contains("is it running?"), "{error}");
}

#[tokio::test]
async fn the_guards_lists_are_read_and_changed_over_the_socket() {
    let place = Place::new();
    let (asker, questions) = Asker::new();
    answer(questions);
    let server = Server::start(&place.socket(), facts(), asker).unwrap();
    let socket = place.socket();
    let denied: dto::DenyList = client::get(&socket, "/v1/deny").await.unwrap();
    assert_eq!(
        serde_json::to_value(&denied.denied).unwrap(),
        serde_json::json!([
            { "source": "203.0.113.5", "reason": "flood", "scope": "udp", "since": "2023-11-14T22:13:20.000Z",
              "until": "2023-11-14T23:13:20.000Z", "packets": 77 },
            { "source": "2001:db8:7::/64", "reason": "flood", "scope": "all", "since": "2023-11-14T22:13:20.000Z",
              "until": null, "packets": 0 },
        ])
    );
    let listed: dto::Prefixes = client::get(&socket, "/v1/block").await.unwrap();
    assert_eq!(listed.prefixes, ["192.0.2.0/24", "203.0.113.9"]);
    for (method, resource, expected) in [
        (Method::DELETE, "/v1/deny", Ok(2)),
        (Method::DELETE, "/v1/deny/2001:db8:7::/64", Ok(1)),
        (Method::DELETE, "/v1/deny/203.0.113.6", Err("203.0.113.6 is not denied")),
        (
            Method::DELETE,
            "/v1/deny/everybody",
            Err("\"everybody\" is neither an IPv4 address nor an IPv6 address or /64"),
        ),
        (Method::PUT, "/v1/block/192.0.2.0/24", Ok(1)),
        (Method::DELETE, "/v1/block/192.0.2.0/24", Ok(1)),
        (Method::PUT, "/v1/allow/192.0.2.7", Err("192.0.2.7: the list is full: it holds 100 at most")),
        (Method::DELETE, "/v1/allow/192.0.2.7", Err("192.0.2.7: it is not on the list")),
        (Method::PUT, "/v1/allow/0.0.0.0/0", Err("0.0.0.0/0 would admit everybody")),
    ] {
        let changed = client::order::<dto::Changed>(&socket, method.clone(), resource).await;
        let told = changed.map(|changed| changed.changed).map_err(|error| error.to_string());
        assert_eq!(told, expected.map_err(ToOwned::to_owned), "{method} {resource}");
    }
    server.stop().await;
}
