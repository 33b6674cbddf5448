//! Wiring: what the daemon is made of, in the order in which it starts, and let go in the order in which it ends.
//!
//! Start: media, state, records, guard, sockets, operators, loop. A call cannot arrive before its media can be carried,
//! nor a packet before the guard stands. Stop: the loop ends the calls, then operators, sockets (what is queued is still
//! sent), media, records.

mod epoch;
mod restore;

use std::fs;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sbc_core::Input;
use sbc_core::engine::Engine;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::admin::server::Server;
use crate::admin::{Asker, dto};
use crate::clock::{SystemRng, now};
use crate::config::Config;
use crate::dataplane::Dataplane as _;
use crate::dataplane::planes::{Planes, PlanesConfig, StartReport};
use crate::dataplane::xdp::MediaBind;
use crate::eventloop::{EventLoop, Inlets, Readiness, Remains, Signal};
use crate::record_sink::RecordSink;
use crate::store::embedded::Embedded;
use crate::store::{Journal, Store as _};
use crate::transport::Transports;

/// Signals that wait for the loop.
const WAITING_SIGNALS: usize = 8;

/// Runs the daemon until it has been told to stop and has stopped.
///
/// # Errors
/// It cannot start: the error says what of, in words for an operator.
pub fn run(config: &Config) -> anyhow::Result<()> {
    let started = Instant::now();
    raise_descriptor_limit();
    let planes_config = planes_config(config);
    let lock = Planes::lock(&planes_config)?;
    // Behind the instance's lock: no other daemon counts or stores.
    let store = Embedded::open(&config.daemon.state_dir, &boot()?)?;
    let mut contents = store.load().context("the store")?;
    let left = restore::fitting(&config.engine, &contents);
    let (mut planes, report, adopted) = Planes::take_over(&planes_config, lock, &left, started)?;
    tell_media(&report);
    let mut engine_config = config.engine.clone();
    engine_config.epoch = epoch::next(&config.daemon.state_dir)?;
    let records = RecordSink::open(&config.daemon.record)?;
    restore::take_over_denials(&mut contents.denied, &planes.denied(), SystemTime::now());
    let adopted: Vec<_> = left.iter().filter(|media| adopted.contains(&media.plan.call)).collect();
    let (restored, forgotten) = restore::restored(&engine_config, contents, &adopted, SystemTime::now());
    let journal = Journal::start(store)?;
    forgotten.into_iter().for_each(|change| journal.note(change));
    let mut engine = Engine::new(engine_config, SystemRng, now());
    engine.handle_input(now(), Input::Restored(Box::new(restored)));
    let guard = engine.guard_setup(now());
    planes.guard(&guard);

    let runtime = tokio::runtime::Runtime::new().context("the async runtime")?;
    runtime.block_on(async {
        let signals = signals()?;
        let (transports, transport_events) = Transports::bind(config)?;
        transports.guard(&guard);
        let descriptors = planes.poll_fds().into_iter().map(|fd| {
            // SAFETY: `planes` keeps its descriptors open for longer than this borrow.
            unsafe { BorrowedFd::borrow_raw(fd) }
        });
        let media = Readiness::new(descriptors).context("the dataplane's descriptors")?;
        let (asker, questions) = Asker::new();
        let facts = facts(config, &report, started);
        let server = Server::start(&config.daemon.socket, facts, asker)?;
        let grace = config.daemon.stop_grace;
        let event_loop = EventLoop::new(engine, planes, Planes::figures, transports, records, journal, grace)
            .taken_over(adopted.iter().map(|media| &media.plan))
            .on_stop(|| tell_system(&[NotifyState::Stopping]));

        info!(instance = config.instance, version = env!("CARGO_PKG_VERSION"), "serving");
        tell_system(&[NotifyState::Ready]);
        let remains = event_loop.run(Inlets { transport: transport_events, questions, signals, media }).await;
        let Remains { dataplane, transports, records, mut transport_events, leaving } = remains;

        server.stop().await;
        // What still arrives is taken and forgotten: a connection whose reader waits for the loop would not be flushed.
        tokio::select! {
            () = transports.shutdown() => {}
            () = async { while transport_events.recv().await.is_some() {} } => {}
        }
        drop(transports);
        if leaving {
            dataplane.leave();
        } else {
            dataplane.stop().context("something of the dataplane is left behind")?;
        }
        drop(records);
        info!("stopped");
        Ok(())
    })
}

/// What the present run of the kernel is called.
fn boot() -> anyhow::Result<String> {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    Ok(fs::read_to_string(BOOT_ID).context(BOOT_ID)?.trim().to_owned())
}

/// SIGTERM and SIGINT stop, SIGQUIT leaves calls to the next daemon, SIGHUP opens files anew.
fn signals() -> anyhow::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(WAITING_SIGNALS);
    for (kind, meaning) in [
        (SignalKind::terminate(), Signal::Stop),
        (SignalKind::interrupt(), Signal::Stop),
        (SignalKind::quit(), Signal::Leave),
        (SignalKind::hangup(), Signal::Reopen),
    ] {
        let mut stream = signal(kind).context("signal handlers")?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                // A full queue already holds more of them than there are steps to stop.
                let _ = sender.try_send(meaning);
            }
        });
    }
    Ok(receiver)
}

/// Connections take descriptors, and so does each port of the relay where the kernel does not steer: as many as the system
/// lets us have.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        warn!(%error, "the limit of open files stays as it is");
    }
}

fn tell_system(state: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "systemd was not told");
    }
}

fn facts(config: &Config, report: &StartReport, started: Instant) -> dto::Facts {
    let realm = |index: u16| {
        let realm = config.engine.realms.get(usize::from(index));
        realm.map(|realm| realm.name.clone()).unwrap_or_default()
    };
    dto::Facts {
        instance: config.instance.clone(),
        started,
        listeners: config
            .engine
            .listeners
            .iter()
            .map(|listener| dto::Listener {
                realm: realm(listener.realm.0),
                transport: listener.transport.to_string(),
                bind: listener.bind,
                advertised: listener.advertised,
            })
            .collect(),
        media_addresses: media_addresses(config, report),
    }
}

/// What would carry media on each address, without changing anything.
///
/// # Errors
/// The host does not tell.
pub fn survey(config: &Config) -> anyhow::Result<Vec<dto::MediaAddress>> {
    Ok(media_addresses(config, &Planes::survey(&planes_config(config))?))
}

fn planes_config(config: &Config) -> PlanesConfig {
    let realms = &config.engine.realms;
    PlanesConfig {
        instance: config.instance.clone(),
        run_dir: config.daemon.socket.parent().map(Path::to_owned).unwrap_or_default(),
        kernel: config.daemon.xdp,
        media: realms
            .iter()
            .map(|realm| MediaBind { address: realm.media.bind, ports: realm.media.ports.clone() })
            .collect(),
        sip: config.engine.listeners.iter().map(|listener| listener.bind.ip()).collect(),
        reserved_ports: config
            .engine
            .listeners
            .iter()
            .map(|listener| listener.bind.port()..=listener.bind.port())
            .collect(),
    }
}

/// The report's addresses are those of the realms, in their order.
fn media_addresses(config: &Config, report: &StartReport) -> Vec<dto::MediaAddress> {
    let realms = config.engine.realms.iter();
    realms
        .zip(&report.addresses)
        .map(|(realm, address)| {
            let relay_reason = report.no_kernel.clone().or_else(|| address.relay_reason.clone());
            dto::MediaAddress {
                realm: realm.name.clone(),
                address: address.bind.address,
                first_port: *address.bind.ports.start(),
                last_port: *address.bind.ports.end(),
                interface: address.interface.clone(),
                path: if relay_reason.is_none() { "kernel" } else { "relay" }.to_owned(),
                relay_reason,
            }
        })
        .collect()
}

/// An operator who expects the kernel to forward should not have to ask why it does not.
fn tell_media(report: &StartReport) {
    if let Some(reason) = &report.not_steered {
        warn!(reason, "each port of the relay needs a descriptor");
    }
    if let Some(reason) = &report.no_kernel {
        warn!(reason, "media is forwarded by the relay");
        return;
    }
    for address in &report.addresses {
        let interface = address.interface.as_deref().unwrap_or("none");
        match &address.relay_reason {
            None => info!(interface, "media is forwarded by the kernel"),
            Some(reason) => warn!(interface, reason, "media is forwarded by the relay"),
        }
    }
}
