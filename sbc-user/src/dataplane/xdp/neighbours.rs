//! Next hops: where a datagram from one of our addresses to a peer goes, as Ethernet sees it.
//!
//! A *path* is a pair of our address and a peer's; the routing table sends it over a *hop*, an egress interface and a
//! neighbour on it. Many paths share a hop, and a hop is one entry of `NEXT_HOPS`, so a gateway that changes its
//! Ethernet address costs one write whatever number of flows uses it. A hop in use is kept resolved by the kernel
//! (`managed` neighbours, Linux 5.16), because packets that XDP forwards never refresh the neighbour table.
//!
//! ```text
//!   acquire ──► route lookup ──► hop known? ──yes──► Ready
//!                                   │no
//!                                   └─► kernel resolves ──► Waiting ──(change: has an address)──► Ready
//! ```

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use super::netlink::{Change, Link, Mac, Neighbour, Netlink, Route};
use super::vlan::{Tags, device_below};

/// A path that no flow uses is kept this long, so that the next call to the same peer finds it resolved.
const PATH_REST: Duration = Duration::from_secs(60);
/// A hop that no path uses is kept this long: slots may name it until they are written anew.
const HOP_REST: Duration = Duration::from_secs(1);
/// Changes of routes are gathered this long before every path is looked up again.
const ROUTES_SETTLE: Duration = Duration::from_millis(100);

/// Index of a hop in `NEXT_HOPS`. Zero is never given: it means that nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct HopId(pub(crate) u16);

/// What the table of hops says about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathState {
    /// Packets can be sent.
    Ready(HopId),
    /// The neighbour is being resolved.
    Waiting,
    /// The destination is this host.
    Local,
    /// It leaves by an interface on which our program does not run.
    NotServed,
    /// No route, or no neighbour answers.
    Unreachable,
    /// The table of hops has no room.
    Full,
}

/// An entry of `NEXT_HOPS` as it should be now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HopEntry {
    pub(crate) ifindex: u32,
    pub(crate) source_mac: Mac,
    pub(crate) destination_mac: Mac,
    pub(crate) tags: Tags,
    pub(crate) mtu: u32,
}

/// Our address and the peer's.
pub(crate) type PathKey = (IpAddr, IpAddr);

#[derive(Debug)]
struct Path {
    users: usize,
    way: Way,
    /// The hop before, which serves until the one of `way` is resolved.
    before: Option<HopId>,
    /// When its last user went away.
    resting_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Hop(HopId),
    Local,
    NotServed,
    Unreachable,
    Full,
}

#[derive(Debug)]
struct Hop {
    /// The interface that the route names (with VLANs, the upper one) and the neighbour on it. `None`: whatever an
    /// earlier daemon meant by the entry, which stays as it is for paths that have no other yet.
    key: Option<(u32, IpAddr)>,
    /// Paths over it.
    paths: usize,
    /// The neighbour's address as last heard. A neighbour that stops answering keeps it: there is no better one.
    mac: Option<Mac>,
    failed: bool,
    /// We asked the kernel to keep it resolved.
    kept: bool,
    /// When its last path went away.
    resting_since: Option<Instant>,
    written: Option<HopEntry>,
}

/// The tables, and the netlink sockets that feed them.
pub(crate) struct Neighbours {
    netlink: Netlink,
    links: HashMap<u32, Link>,
    served: HashSet<u32>,
    capacity: u16,
    paths: HashMap<PathKey, Path>,
    hops: HashMap<HopId, Hop>,
    hop_ids: HashMap<(u32, IpAddr), HopId>,
    free: Vec<HopId>,
    /// Numbers that slots named when they were looked at, and that nobody has asked for yet.
    reserved: HashSet<HopId>,
    next_new: u16,
    routes_due: Option<Instant>,
    writes: VecDeque<(HopId, Option<HopEntry>)>,
    /// Paths whose new hop is not resolved yet.
    changing: BTreeSet<PathKey>,
    moved: BTreeSet<PathKey>,
    /// In the order in which they began to rest; one that is used again meanwhile stays in the row.
    resting_paths: VecDeque<(Instant, PathKey)>,
    resting_hops: VecDeque<(Instant, HopId)>,
}

impl Neighbours {
    /// `served`: the interfaces on which our program runs. `capacity`: entries of `NEXT_HOPS`.
    pub(crate) fn new(mut netlink: Netlink, served: HashSet<u32>, capacity: u16) -> io::Result<Self> {
        let links = netlink.links()?.into_iter().map(|link| (link.ifindex, link)).collect();
        Ok(Self {
            netlink,
            links,
            served,
            capacity,
            paths: HashMap::new(),
            hops: HashMap::new(),
            hop_ids: HashMap::new(),
            free: Vec::new(),
            reserved: HashSet::new(),
            next_new: 1,
            routes_due: None,
            writes: VecDeque::new(),
            changing: BTreeSet::new(),
            moved: BTreeSet::new(),
            resting_paths: VecDeque::new(),
            resting_hops: VecDeque::new(),
        })
    }

    /// Readable when `handle_changes` has work.
    pub(crate) fn changes_fd(&self) -> RawFd {
        self.netlink.changes_fd()
    }

    /// Starts using a path. Each call is undone by one `release`.
    pub(crate) fn acquire(&mut self, key: PathKey) -> PathState {
        if !self.paths.contains_key(&key) {
            let way = self.look_up(key, None);
            self.enter(way);
            self.paths.insert(key, Path { users: 0, way, before: None, resting_since: None });
        }
        self.use_path(key);
        self.state(key)
    }

    /// Gives none of these hops to anybody: slots name them that an earlier daemon wrote. To be called first of all.
    pub(crate) fn reserve(&mut self, named: &HashSet<HopId>) {
        let last = named.iter().map(|hop| hop.0).max().unwrap_or(0);
        self.next_new = last.saturating_add(1);
        self.free = (1..last).map(HopId).filter(|hop| !named.contains(hop)).collect();
        self.reserved.clone_from(named);
    }

    /// Ends the taking over: gives out those reserved numbers as well that no path has and no slot in `named` names.
    pub(crate) fn free_reserved(&mut self, named: &HashSet<HopId>) {
        for id in std::mem::take(&mut self.reserved) {
            if !self.hops.contains_key(&id) && !named.contains(&id) {
                self.free.push(id);
                self.writes.push_back((id, None));
            }
        }
    }

    /// Starts using a path whose flows name this reserved hop, which has this entry. If the path leads there still, the
    /// hop is its own from now on; if not, the entry serves as it is until another one is resolved.
    pub(crate) fn adopt(&mut self, key: PathKey, named: HopId, entry: HopEntry) {
        if !self.paths.contains_key(&key) {
            let way = self.look_up(key, Some((named, entry)));
            self.enter(way);
            let before = (way != Way::Hop(named)).then_some(named);
            if before.is_some() {
                self.hold(named, entry);
                self.enter(Way::Hop(named));
                self.changing.insert(key);
            }
            self.paths.insert(key, Path { users: 0, way, before, resting_since: None });
        }
        self.use_path(key);
    }

    /// Keeps an entry of an earlier daemon under its number.
    fn hold(&mut self, id: HopId, entry: HopEntry) {
        self.hops.entry(id).or_insert(Hop {
            key: None,
            paths: 0,
            mac: Some(entry.destination_mac),
            failed: false,
            kept: false,
            resting_since: None,
            written: Some(entry),
        });
    }

    fn use_path(&mut self, key: PathKey) {
        if let Some(path) = self.paths.get_mut(&key) {
            path.users += 1;
            path.resting_since = None;
        }
    }

    /// Stops using a path.
    pub(crate) fn release(&mut self, now: Instant, key: PathKey) {
        let Some(path) = self.paths.get_mut(&key) else { return };
        path.users -= 1;
        if path.users == 0 {
            path.resting_since = Some(now);
            self.resting_paths.push_back((now, key));
        }
    }

    /// What is known of a path that is in use.
    pub(crate) fn state(&self, key: PathKey) -> PathState {
        let Some(path) = self.paths.get(&key) else { return PathState::Unreachable };
        path.before.map_or_else(|| self.state_of(path.way), PathState::Ready)
    }

    fn state_of(&self, way: Way) -> PathState {
        match way {
            Way::Local => PathState::Local,
            Way::NotServed => PathState::NotServed,
            Way::Unreachable => PathState::Unreachable,
            Way::Full => PathState::Full,
            Way::Hop(id) => match self.hops.get(&id) {
                Some(hop) if hop.mac.is_some() => PathState::Ready(id),
                Some(hop) if hop.failed => PathState::Unreachable,
                _ => PathState::Waiting,
            },
        }
    }

    /// Largest IP packet that leaves by a path, whether its neighbour is resolved or not.
    pub(crate) fn mtu(&self, key: PathKey) -> Option<u32> {
        let Way::Hop(hop) = self.paths.get(&key)?.way else { return None };
        let (_, _, _, mtu) = self.egress(self.hops.get(&hop)?.key?.0)?;
        Some(mtu)
    }

    /// Every entry of `NEXT_HOPS` that was written.
    pub(crate) fn written(&self) -> impl Iterator<Item = (HopId, HopEntry)> {
        self.hops.iter().filter_map(|(id, hop)| Some((*id, hop.written?)))
    }

    /// Whether routes, links or addresses have changed, and are settled now.
    pub(crate) fn is_settling(&self, now: Instant) -> bool {
        self.routes_due.is_some_and(|due| due <= now)
    }

    /// Whether there is such an interface.
    pub(crate) fn has_link(&self, ifindex: u32) -> bool {
        self.links.contains_key(&ifindex)
    }

    /// Our program runs on these interfaces from now on.
    pub(crate) fn serve(&mut self, served: HashSet<u32>) {
        self.served = served;
    }

    /// The socket for questions.
    pub(crate) fn netlink(&mut self) -> &mut Netlink {
        &mut self.netlink
    }

    /// The next entry to write to `NEXT_HOPS`; `None` clears it.
    pub(crate) fn next_write(&mut self) -> Option<(HopId, Option<HopEntry>)> {
        self.writes.pop_front()
    }

    /// The next path whose hop is another one than before.
    pub(crate) fn next_moved(&mut self) -> Option<PathKey> {
        self.moved.pop_first()
    }

    /// When `handle_timeout` has work.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let paths = self.resting_paths.front().map(|(since, _)| *since + PATH_REST);
        let hops = self.resting_hops.front().map(|(since, _)| *since + HOP_REST);
        [self.routes_due, paths, hops].into_iter().flatten().min()
    }

    /// Looks paths up again after routes settled, and forgets what rested long enough.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.routes_due.is_some_and(|due| due <= now) {
            self.routes_due = None;
            self.look_up_all(now);
        }
        while let Some((since, key)) = self.resting_paths.pop_front_if(|(since, _)| *since + PATH_REST <= now)
        {
            if self.paths.get(&key).is_some_and(|path| path.resting_since == Some(since))
                && let Some(path) = self.paths.remove(&key)
            {
                self.changing.remove(&key);
                self.leave(now, path.way);
                if let Some(before) = path.before {
                    self.leave(now, Way::Hop(before));
                }
            }
        }
        while let Some((since, id)) = self.resting_hops.pop_front_if(|(since, _)| *since + HOP_REST <= now) {
            if self.hops.get(&id).is_some_and(|hop| hop.resting_since == Some(since)) {
                self.forget(id);
            }
        }
    }

    /// Takes in what changed in the namespace's network.
    pub(crate) fn handle_changes(&mut self, now: Instant) -> io::Result<()> {
        let mut links_changed = false;
        while let Some(change) = self.netlink.next_change()? {
            match change {
                Change::Neighbour(neighbour) => self.neighbour_changed(neighbour),
                Change::NeighbourGone { ifindex, address } => {
                    if let Some(id) = self.hop_ids.get(&(ifindex, address)).copied() {
                        self.keep(id);
                    }
                }
                Change::Routes => {
                    self.routes_due.get_or_insert(now + ROUTES_SETTLE);
                }
                Change::Link(_) => links_changed = true,
                Change::Lost => {
                    links_changed = true;
                    self.ask_all_neighbours();
                }
            }
        }
        if links_changed {
            self.links = self.netlink.links()?.into_iter().map(|link| (link.ifindex, link)).collect();
            let links = &self.links;
            for gone in self.served.extract_if(|ifindex| !links.contains_key(ifindex)) {
                tracing::error!(
                    ifindex = gone,
                    "a media interface is gone; until it is back its new calls are the relay's"
                );
            }
            // A link that went down or came up takes routes with it without a word about each.
            self.routes_due.get_or_insert(now + ROUTES_SETTLE);
            let ids: Vec<HopId> = self.hops.keys().copied().collect();
            for id in ids {
                self.write(id);
                // Who did not answer over a link that was down may answer now.
                if self.hops.get(&id).is_some_and(|hop| hop.failed) {
                    self.keep(id);
                }
            }
        }
        self.settle(now);
        Ok(())
    }

    /// Lets the kernel forget what it kept for us.
    pub(crate) fn stop(&mut self) {
        let ids: Vec<HopId> = self.hops.keys().copied().collect();
        for id in ids {
            self.forget(id);
        }
    }

    fn look_up(&mut self, (source, destination): PathKey, named: Option<(HopId, HopEntry)>) -> Way {
        let route = self.netlink.route(source, destination).unwrap_or_else(|error| {
            tracing::warn!(%source, %error, "cannot ask for a route");
            Route::None
        });
        match route {
            Route::None => Way::Unreachable,
            Route::Local => Way::Local,
            Route::Out { ifindex, neighbour } => {
                if self.egress(ifindex).is_none_or(|(device, ..)| !self.served.contains(&device)) {
                    return Way::NotServed;
                }
                self.hop((ifindex, neighbour), named).map_or(Way::Full, Way::Hop)
            }
        }
    }

    fn look_up_all(&mut self, now: Instant) {
        let keys: Vec<PathKey> = self.paths.keys().copied().collect();
        for key in keys {
            let way = self.look_up(key, None);
            self.enter(way);
            let Some(path) = self.paths.get_mut(&key) else { continue };
            let old = std::mem::replace(&mut path.way, way);
            match old {
                Way::Hop(hop) if old != way && path.before.is_none() => {
                    path.before = Some(hop);
                    self.changing.insert(key);
                }
                Way::Hop(_) | Way::Local | Way::NotServed | Way::Unreachable | Way::Full => {
                    self.leave(now, old);
                    if old != way {
                        self.moved.insert(key);
                        // Once more when it is resolved: there was no hop before that could serve until then.
                        self.changing.insert(key);
                    }
                }
            }
        }
        self.settle(now);
    }

    /// Lets go of hops that were kept until their successors are resolved, or are known not to answer.
    pub(crate) fn settle(&mut self, now: Instant) {
        let changing: Vec<PathKey> = self.changing.iter().copied().collect();
        for key in changing {
            let Some(way) = self.paths.get(&key).map(|path| path.way) else { continue };
            if self.state_of(way) == PathState::Waiting {
                continue;
            }
            self.changing.remove(&key);
            self.moved.insert(key);
            if let Some(before) = self.paths.get_mut(&key).and_then(|path| path.before.take()) {
                self.leave(now, Way::Hop(before));
            }
        }
    }

    /// The hop for a neighbour; makes one and has it resolved if there is none. It gets the number of an entry of an
    /// earlier daemon that says the same: other slots may name that number, and mean the neighbour that it leads to.
    fn hop(&mut self, key: (u32, IpAddr), named: Option<(HopId, HopEntry)>) -> Option<HopId> {
        if let Some(id) = self.hop_ids.get(&key) {
            return Some(*id);
        }
        let (ifindex, address) = key;
        let known = self.netlink.neighbour(ifindex, address).ok().flatten();
        let mac = known.and_then(|neighbour| neighbour.mac);
        let now = self.entry(ifindex, mac);
        let says_the_same = |entry: HopEntry| {
            now.is_some_and(|now| {
                (now.ifindex, now.destination_mac, now.tags)
                    == (entry.ifindex, entry.destination_mac, entry.tags)
            })
        };
        let named = named
            .filter(|(id, entry)| !self.hops.contains_key(id) && says_the_same(*entry))
            .map(|(id, _)| id);
        let id = named.or_else(|| self.free.pop()).or_else(|| {
            (self.next_new < self.capacity).then(|| {
                self.next_new += 1;
                HopId(self.next_new - 1)
            })
        })?;
        let hop = Hop {
            key: Some(key),
            paths: 0,
            mac,
            failed: false,
            kept: false,
            // Counted as resting until its first path enters.
            resting_since: None,
            written: None,
        };
        self.hops.insert(id, hop);
        self.hop_ids.insert(key, id);
        if known.is_none_or(|neighbour| !neighbour.fixed) {
            self.keep(id);
        }
        self.write(id);
        Some(id)
    }

    /// Has the kernel resolve a hop's neighbour and keep it so. A link that loses its carrier forgets its neighbours,
    /// and what XDP forwards would not make the kernel ask again.
    fn keep(&mut self, id: HopId) {
        let Some(hop) = self.hops.get_mut(&id) else { return };
        let Some((ifindex, address)) = hop.key else { return };
        let asked = self.netlink.keep_resolved(ifindex, address);
        if let Err(error) = &asked {
            tracing::warn!(%address, ifindex, %error, "cannot resolve a neighbour");
        }
        (hop.kept, hop.failed) = (asked.is_ok(), asked.is_err());
    }

    fn enter(&mut self, way: Way) {
        if let Way::Hop(id) = way
            && let Some(hop) = self.hops.get_mut(&id)
        {
            hop.paths += 1;
            hop.resting_since = None;
        }
    }

    fn leave(&mut self, now: Instant, way: Way) {
        if let Way::Hop(id) = way
            && let Some(hop) = self.hops.get_mut(&id)
        {
            hop.paths -= 1;
            if hop.paths == 0 {
                hop.resting_since = Some(now);
                self.resting_hops.push_back((now, id));
            }
        }
    }

    fn forget(&mut self, id: HopId) {
        let Some(hop) = self.hops.remove(&id) else { return };
        self.free.push(id);
        self.writes.push_back((id, None));
        let Some(key) = hop.key else { return };
        self.hop_ids.remove(&key);
        if hop.kept
            && let Err(error) = self.netlink.resolve(key.0, key.1)
        {
            tracing::debug!(address = %key.1, %error, "cannot let go of a neighbour");
        }
    }

    fn neighbour_changed(&mut self, neighbour: Neighbour) {
        let Some(id) = self.hop_ids.get(&(neighbour.ifindex, neighbour.address)).copied() else { return };
        let Some(hop) = self.hops.get_mut(&id) else { return };
        hop.failed = neighbour.failed;
        if neighbour.mac.is_some() {
            hop.mac = neighbour.mac;
            self.write(id);
        }
    }

    fn ask_all_neighbours(&mut self) {
        let keys: Vec<(u32, IpAddr)> = self.hop_ids.keys().copied().collect();
        for (ifindex, address) in keys {
            if let Ok(Some(neighbour)) = self.netlink.neighbour(ifindex, address) {
                self.neighbour_changed(neighbour);
            }
        }
    }

    /// Queues the hop's entry if it is another one than the last.
    fn write(&mut self, id: HopId) {
        let Some(hop) = self.hops.get(&id) else { return };
        let Some((ifindex, _)) = hop.key else { return };
        let entry = self.entry(ifindex, hop.mac);
        if let Some(hop) = self.hops.get_mut(&id)
            && hop.written != entry
        {
            hop.written = entry;
            self.writes.push_back((id, entry));
        }
    }

    /// The entry of a neighbour on an interface.
    fn entry(&self, ifindex: u32, mac: Option<Mac>) -> Option<HopEntry> {
        let ((ifindex, tags, source_mac, mtu), destination_mac) = self.egress(ifindex).zip(mac)?;
        Some(HopEntry { ifindex, source_mac, destination_mac, tags, mtu })
    }

    /// How an interface sends: the device, the tags, its own address and its own MTU, which says whether tags cost.
    fn egress(&self, ifindex: u32) -> Option<(u32, Tags, Mac, u32)> {
        let link = self.links.get(&ifindex).filter(|link| link.up)?;
        let (device, tags) = self.device(ifindex)?;
        Some((device.ifindex, tags, link.mac?, link.mtu))
    }

    /// The device that sends for an interface: itself, or the one below all VLAN interfaces, with their tags.
    fn device(&self, ifindex: u32) -> Option<(&Link, Tags)> {
        device_below(self.links.get(&ifindex)?, |below| self.links.get(&below)).ok()
    }
}
