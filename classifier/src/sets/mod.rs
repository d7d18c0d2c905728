//! Sets of addresses, and of addresses with protocol and port, that rules name.
//!
//! Every combination of sets that some address is in is a *class*: a bitmap of any width, kept once. The longest of all
//! members' prefixes that holds an address names its class, so an address is looked up once, in a route table
//! ([`fastpath::fib`]), however many sets there are and however many members they have. Nothing is hashed, so nobody can
//! choose members that slow it down. A member's change builds a class where no reader looks and changes one word of the
//! table; memory is used again when every worker has finished the turn it was in.

mod classes;
mod family;
mod memory;
mod view;

pub(crate) use memory::LINE;
pub use memory::{Class, Memory};
pub use view::View;

use crate::rule::SetId;
use classes::Classes;
use family::Family;
use fastpath::fib::{Pages, Pool};
use fastpath::qsbr::Qsbr;
use ipnet::IpNet;
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

/// The most sets there can be, the set of all addresses among them.
pub const SETS_MAX: usize = 1 << 16;
/// Members of removed sets that one call of [`Sets::reclaim`] takes out.
const RECLAIM_MEMBERS: usize = 512;

/// What a set has for members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Prefixes of addresses.
    Networks,
    /// Addresses with protocol and port.
    Ports,
}

/// A member of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Member {
    /// Every address of a prefix.
    Network(IpNet),
    /// An address together with protocol and port.
    Port {
        /// The address.
        address: IpAddr,
        /// IP protocol number.
        protocol: u8,
        /// Port.
        port: u16,
    },
}

/// A member comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The set.
    pub set: SetId,
    /// The member.
    pub member: Member,
    /// Whether it is one from now on.
    pub present: bool,
}

impl Change {
    /// With the address of a prefix as it is: bits behind it are zero.
    fn without_host_bits(&self) -> Change {
        let member = match self.member {
            Member::Network(network) => Member::Network(network.trunc()),
            member => member,
        };
        Change { member, ..*self }
    }
}

/// Bytes that sets may take of what readers see.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// For the table of prefixes.
    pub prefix_bytes: usize,
    /// For the classes.
    pub class_bytes: usize,
}

/// A memory has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the set memory of {bytes} bytes is full: remove members, or start with more set memory")]
pub struct Full {
    /// Its bytes.
    pub bytes: usize,
}

/// Why sets did not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No room.
    #[error(transparent)]
    Full(#[from] Full),
    /// No name left.
    #[error("there are {SETS_MAX} sets, the most there can be: remove some")]
    TooMany,
    /// No such set.
    #[error("there is no set {0:?}: create it before its members")]
    Missing(SetId),
    /// A member of the other kind.
    #[error("set {0:?} cannot have {1:?} for a member: it is of the other kind")]
    WrongKind(SetId, Member),
}

/// A set that an address is in; with a port where only together with that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Entry {
    set: u32,
    port: Option<(u8, u16)>,
}

struct Set {
    kind: Kind,
    members: HashSet<Member>,
}

/// Control's end of all sets. Workers have a [`View`].
pub struct Sets {
    pool: Pool,
    classes: Classes,
    v4: Family<u32>,
    v6: Family<u128>,
    sets: HashMap<SetId, Set>,
    qsbr: Arc<Qsbr>,
    /// Names given up: the lowest is given again first, which keeps bitmaps short.
    free: BTreeSet<SetId>,
    next: u32,
    /// Removed sets, with the stamp after which no worker has a policy that names them.
    dying: VecDeque<(u64, SetId, Vec<Member>)>,
}

impl Sets {
    /// None. Readers announce their turns to `qsbr`.
    ///
    /// # Errors
    /// The kernel's, if it has no memory of that `capacity`.
    pub fn new(capacity: Capacity, qsbr: Arc<Qsbr>) -> io::Result<Sets> {
        let pool = Pool::new(capacity.prefix_bytes, Pages::Huge, qsbr.clone())?;
        Ok(Sets {
            v4: Family::new(&pool),
            v6: Family::new(&pool),
            pool,
            classes: Classes::new(capacity.class_bytes, qsbr.clone())?,
            sets: HashMap::new(),
            qsbr,
            free: BTreeSet::new(),
            next: 1,
            dying: VecDeque::new(),
        })
    }

    /// What a worker looks addresses up in.
    pub fn view(&self) -> View {
        View::new(self.v4.view(), self.v6.view(), self.classes.memory().clone())
    }

    /// A new set without members.
    ///
    /// # Errors
    /// [`SetError::TooMany`].
    pub fn create(&mut self, kind: Kind) -> Result<SetId, SetError> {
        let id = match self.free.pop_first() {
            Some(id) => id,
            None if (self.next as usize) < SETS_MAX => {
                self.next += 1;
                SetId(self.next - 1)
            }
            None => return Err(SetError::TooMany),
        };
        let members = HashSet::new();
        self.sets.insert(id, Set { kind, members });
        Ok(id)
    }

    /// Whether there is such a set of that kind.
    pub fn is(&self, id: SetId, kind: Kind) -> bool {
        self.sets.get(&id).is_some_and(|set| set.kind == kind)
    }

    /// The members of a set, in no order.
    pub fn members(&self, id: SetId) -> impl Iterator<Item = &Member> {
        self.sets.get(&id).into_iter().flat_map(|set| &set.members)
    }

    /// Makes members come and go; one that is already as wanted is passed over. All changes of one prefix happen at
    /// once: an address that moves from one set to another is never seen in both, or in none.
    ///
    /// # Errors
    /// Nothing is changed then.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), SetError> {
        let changes: Vec<Change> = changes.iter().map(Change::without_host_bits).collect();
        for change in &changes {
            self.check(change)?;
        }
        let mut order: Vec<&Change> = changes.iter().collect();
        order.sort_by_key(|change| prefix(&change.member));
        self.classes.begin();
        let groups: Vec<&[&Change]> = order.chunk_by(|a, b| prefix(&a.member) == prefix(&b.member)).collect();
        let outcome = self.change_groups(&groups);
        self.classes.end();
        outcome?;
        for change in &changes {
            let Some(set) = self.sets.get_mut(&change.set) else {
                continue;
            };
            match change.present {
                true => set.members.insert(change.member),
                false => set.members.remove(&change.member),
            };
        }
        Ok(())
    }

    /// Removes a set once no worker has a policy any more that names it. To be called when no published one does.
    pub fn remove(&mut self, id: SetId) {
        if let Some(set) = self.sets.remove(&id) {
            let members = set.members.into_iter().collect();
            self.dying.push_back((self.qsbr.stamp(), id, members));
        }
    }

    /// Takes back what no worker can still see. Returns whether something still waits, or there is more to do.
    pub fn reclaim(&mut self) -> bool {
        self.pool.reclaim();
        self.classes.reclaim();
        let safe = self.qsbr.safe();
        let mut budget = RECLAIM_MEMBERS;
        while let Some((stamp, id, members)) = self.dying.front_mut() {
            if *stamp > safe || budget == 0 {
                return true;
            }
            let id = *id;
            let rest = members.len().saturating_sub(budget);
            let some = members.split_off(rest);
            let empty = members.is_empty();
            budget -= some.len();
            for member in some {
                let change = Change {
                    set: id,
                    member,
                    present: false,
                };
                if self.change(&[&change]).is_err() {
                    // Too full even to remove: again when workers have let go of something.
                    if let Some((_, _, members)) = self.dying.front_mut() {
                        members.push(member);
                    }
                    return true;
                }
            }
            if empty {
                self.dying.pop_front();
                self.free.insert(id);
            }
        }
        false
    }

    /// Prefixes that some set has.
    pub fn prefixes(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    /// Distinct combinations of sets.
    pub fn classes(&self) -> usize {
        self.classes.len()
    }

    /// Bytes in use of what readers see.
    pub fn used_bytes(&self) -> usize {
        self.pool.used_bytes() + self.classes.touched_bytes()
    }

    fn check(&self, change: &Change) -> Result<(), SetError> {
        let set = self.sets.get(&change.set).ok_or(SetError::Missing(change.set))?;
        match (set.kind, change.member) {
            (Kind::Networks, Member::Network(_)) | (Kind::Ports, Member::Port { .. }) => Ok(()),
            _ => Err(SetError::WrongKind(change.set, change.member)),
        }
    }

    /// Carries out all changes, or none.
    fn change_groups(&mut self, groups: &[&[&Change]]) -> Result<(), Full> {
        for (i, group) in groups.iter().enumerate() {
            if let Err(full) = self.change(group) {
                // Backwards, through the combinations that there were on the way: their memory is held.
                groups[..=i].iter().rev().for_each(|group| self.restore(group));
                return Err(full);
            }
        }
        Ok(())
    }

    /// Carries out changes of one prefix.
    fn change(&mut self, group: &[&Change]) -> Result<(), Full> {
        let entries: Vec<(Entry, bool)> = group.iter().map(|change| (entry(change), change.present)).collect();
        self.set(group, &entries)
    }

    /// Makes the members of a group what the sets say they are.
    fn restore(&mut self, group: &[&Change]) {
        let was = |change: &Change| {
            self.sets
                .get(&change.set)
                .is_some_and(|set| set.members.contains(&change.member))
        };
        let entries: Vec<(Entry, bool)> = group.iter().map(|change| (entry(change), was(change))).collect();
        let _ = self.set(group, &entries);
    }

    fn set(&mut self, group: &[&Change], entries: &[(Entry, bool)]) -> Result<(), Full> {
        let Some(first) = group.first() else { return Ok(()) };
        let (pool, classes) = (&mut self.pool, &mut self.classes);
        match prefix(&first.member) {
            (IpAddr::V4(address), length) => self.v4.change(pool, classes, (address.to_bits(), length), entries),
            (IpAddr::V6(address), length) => self.v6.change(pool, classes, (address.to_bits(), length), entries),
        }
    }
}

fn entry(change: &Change) -> Entry {
    Entry {
        set: change.set.0,
        port: match change.member {
            Member::Network(_) => None,
            Member::Port { protocol, port, .. } => Some((protocol, port)),
        },
    }
}

/// The prefix whose addresses a member is about.
fn prefix(member: &Member) -> (IpAddr, u32) {
    match member {
        Member::Network(network) => (network.network(), u32::from(network.prefix_len())),
        Member::Port { address, .. } if address.is_ipv4() => (*address, 32),
        Member::Port { address, .. } => (*address, 128),
    }
}
