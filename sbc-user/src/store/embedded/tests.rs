use std::net::SocketAddr;
use std::time::{Instant, UNIX_EPOCH};

use sbc_core::command::LegView;
use sbc_core::config::Prefix;
use sbc_core::flow::Transport;
use sbc_core::guard::{Denied, DenyReason, DenyScope, Source};
use sbc_core::id::{CallId, RealmId};
use sbc_core::media::plan::{
    LearnWindow, MediaPace, MediaPlan, PeerMedia, Placement, SourcePolicy, StreamPlan, StreamSide,
};
use sbc_core::restart::CallCheckpoint;

use super::super::Gone;
use super::super::memory::Memory;
use super::*;
use crate::dataplane::{KernelPair, MediaCheckpoint};

struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sbc-store-{}-{test}", std::process::id()));
        Self(path)
    }

    fn open(&self, boot: &str) -> Embedded {
        Embedded::open(&self.0, boot).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn side(port: u16, source: SourcePolicy) -> StreamSide {
    StreamSide {
        realm: RealmId(1),
        local_ip: "203.0.113.1".parse().unwrap(),
        local_rtp_port: port,
        peer: Some(PeerMedia { rtp: socket("192.0.2.7:4000"), rtcp: socket("192.0.2.7:4001") }),
        rtcp_mux: true,
        source,
        pace: MediaPace { packets_per_second: 75, clock_rate_hz: 8000 },
        dscp: 46,
    }
}

fn media(call: u64) -> MediaCheckpoint {
    let learn = SourcePolicy::Learn {
        allowed: Prefix { addr: "2001:db8::".parse().unwrap(), len: 64 },
        window: LearnWindow { opening: 3, open: true },
    };
    let pair = KernelPair {
        generation: 70_001,
        kept: [None, Some(socket("[2001:db8::1]:9"))],
        base: [vec![1, u64::MAX], vec![]],
    };
    let stream = |mline, port| StreamPlan {
        mline,
        caller: side(port, learn),
        callee: StreamSide { peer: None, ..side(port + 2, SourcePolicy::Signalled) },
    };
    MediaCheckpoint {
        plan: MediaPlan { call: CallId(call), streams: vec![stream(0, 20_000), stream(2, 20_010)] },
        placements: vec![Placement::Kernel, Placement::Relay],
        kernel: vec![(0, [pair.clone(), pair])],
    }
}

fn call(call: u64) -> CallCheckpoint {
    let leg = |name: &str| LegView {
        realm: "public".to_owned(),
        trunk: name.to_owned(),
        transport: Transport::Tls,
        remote: socket("192.0.2.7:5061"),
        sip_call_id: format!("{call}@{name}"),
        from: "sip:a@example.com".to_owned(),
        to: "sip:b@example.com".to_owned(),
    };
    CallCheckpoint {
        call: CallId(call),
        began: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
        ringing: None,
        answered: UNIX_EPOCH + Duration::from_millis(1_700_000_009_000),
        held: true,
        caller: leg("carrier"),
        callee: leg("pbx"),
    }
}

fn denied(last: u8, until: Option<u64>) -> Denied {
    Denied {
        source: Source::of([203, 0, 113, last].into()),
        reason: DenyReason::Flood,
        scope: DenyScope::All,
        since: UNIX_EPOCH + Duration::from_secs(u64::from(last)),
        until: until.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
    }
}

fn listed(text: &str, list: ListKind, listed: bool) -> Change {
    let prefix = Prefix { addr: text.parse().unwrap(), len: 24 };
    Change::Listed(ListChange { list, prefix, listed })
}

fn gone(call: u64, since: SystemTime) -> Change {
    Change::Gone(Gone { call: CallId(call), ports: vec![socket("203.0.113.1:20000")], since })
}

/// Both stores, given the same, keep the same; and the file still has it when it is opened anew.
#[test]
fn what_is_put_is_found_again() {
    let scratch = Scratch::new("found");
    let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let steps = [
        vec![
            Change::Media(Box::new(media(1))),
            Change::Media(Box::new(media(2))),
            Change::Call(Box::new(call(1))),
        ],
        vec![
            Change::Denied(denied(9, None)),
            Change::Denied(denied(8, Some(77))),
            Change::Denied(denied(7, None)),
        ],
        vec![Change::Media(Box::new(MediaCheckpoint { kernel: vec![], ..media(1) }))],
        vec![gone(2, now), Change::Undenied(Source::of([203, 0, 113, 7].into()))],
        vec![listed("192.0.2.0", ListKind::Block, true), listed("192.0.2.0", ListKind::Allow, true)],
        vec![listed("192.0.2.0", ListKind::Allow, false)],
    ];
    let (mut memory, mut embedded) = (Memory::default(), scratch.open("boot"));
    for step in steps {
        memory.put(now, step.clone()).unwrap();
        embedded.put(now, step).unwrap();
    }
    let sorted = |mut contents: Contents| {
        contents.lists.sort_by_key(list_key);
        contents
    };
    let expected = sorted(memory.load().unwrap());
    assert_eq!((expected.media.len(), expected.calls.len(), expected.gone.len()), (1, 1, 1));
    assert_eq!((expected.denied.len(), expected.lists.len()), (2, 2));
    assert_eq!(sorted(embedded.load().unwrap()), expected);
    drop(embedded);
    assert_eq!(sorted(scratch.open("boot").load().unwrap()), expected);
}

#[test]
fn a_boot_ends_calls_and_no_denial() {
    let scratch = Scratch::new("boot");
    let mut store = scratch.open("one");
    let now = SystemTime::now();
    let changes = vec![
        Change::Media(Box::new(media(1))),
        Change::Call(Box::new(call(1))),
        gone(2, now),
        Change::Denied(denied(1, None)),
    ];
    store.put(now, changes).unwrap();
    drop(store);
    let expected = Contents { denied: vec![denied(1, None)], ..Contents::default() };
    assert_eq!(scratch.open("two").load().unwrap(), expected);
}

#[test]
fn ports_that_have_rested_are_forgotten() {
    let scratch = Scratch::new("rested");
    let mut store = scratch.open("boot");
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000);
    store.put(long_ago, vec![gone(1, long_ago)]).unwrap();
    assert_eq!(store.load().unwrap().gone.len(), 1);
    store.put(long_ago + LONGEST_REST + Duration::from_secs(1), Vec::new()).unwrap();
    assert_eq!(store.load().unwrap().gone.len(), 0);
}

/// Whatever the file holds, the daemon starts; and what it held is still there to be looked at.
#[test]
fn a_file_that_cannot_be_read_is_moved_aside() {
    type Spoil = (&'static str, fn(&Path));
    let spoils: [Spoil; 5] = [
        ("foreign", |path| fs::write(path, b"[not]\na = database\n".repeat(1000)).unwrap()),
        ("short", |path| fs::write(path, b"redb").unwrap()),
        ("cut", |path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("overwritten", |path| {
            let mut bytes = fs::read(path).unwrap();
            for (at, byte) in bytes.iter_mut().enumerate().skip(320) {
                *byte ^= (at * 131) as u8;
            }
            fs::write(path, bytes).unwrap();
        }),
        ("of a later version", |path| {
            let database = Database::create(path).unwrap();
            let transaction = database.begin_write().unwrap();
            transaction.open_table(META).unwrap().insert("format", "2").unwrap();
            transaction.commit().unwrap();
        }),
    ];
    for (name, spoil) in spoils {
        let scratch = Scratch::new(&name.replace(' ', "-"));
        let mut store = scratch.open("boot");
        store.put(SystemTime::now(), vec![Change::Denied(denied(1, None))]).unwrap();
        drop(store);
        spoil(&Embedded::path(&scratch.0));
        let mut store = scratch.open("boot");
        assert_eq!(store.load().unwrap(), Contents::default(), "{name}");
        assert!(scratch.0.join(ASIDE).exists(), "{name}");
        store.put(SystemTime::now(), vec![Change::Denied(denied(2, None))]).unwrap();
        drop(store);
        assert_eq!(scratch.open("boot").load().unwrap().denied, [denied(2, None)], "{name}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_an_error_that_names_it() {
    let error = Embedded::open(Path::new("/proc/sbc"), "boot").unwrap_err();
    assert!(format!("{error:#}").contains("/proc/sbc"), "{error:#}");
}

/// Not a measurement of the disk: what the forms and the database cost, and how small they are.
#[test]
fn a_thousand_plans_are_one_transaction() {
    let scratch = Scratch::new("thousand");
    let mut store = scratch.open("boot");
    let changes: Vec<Change> = (0..1000).map(|id| Change::Media(Box::new(media(id)))).collect();
    let bytes = dto::write::<dto::Media>(&media(1)).unwrap().len();
    let began = Instant::now();
    store.put(SystemTime::now(), changes).unwrap();
    println!("{} us per plan of {bytes} bytes", began.elapsed().as_micros() / 1000);
    assert_eq!(store.load().unwrap().media.len(), 1000);
    assert!(bytes < 2000, "{bytes}");
}
