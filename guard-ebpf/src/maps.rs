//! Every map. Policy maps never evict: a full one refuses the new entry, so nobody is un-governed by
//! pressure.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage},
    macros::{btf_map, map},
    maps::RingBuf,
};
use guard_common::{
    dns::{MAX_QUERIES, Query, QueryKey},
    flow::{Flow, FlowKey, Tag},
    policy::{
        AgentEntry, Config, EVENTS_BYTES, Layout, MAX_AGENTS, MAX_DENY_PORTS, MAX_FLOWS, MAX_HELD, MAX_KNOWN,
        MAX_NAMES, MAX_NETNS, MAX_PARENTS, MAX_RELAYS, MAX_SEEN, NAME_LEN, NetnsEntry, STATS as STAT_COUNT,
    },
};

use crate::storage::Inherited;

const NO_PREALLOC: usize = BPF_F_NO_PREALLOC as usize;

/// One entry: flags, level mask, generation, heartbeat.
#[btf_map]
pub(crate) static CFG: Array<Config, 1> = Array::new();

/// Cgroup id to agent.
#[btf_map]
pub(crate) static AGENTS: HashMap<u64, AgentEntry, { MAX_AGENTS as usize }, NO_PREALLOC> = HashMap::new();

/// Cgroups whose every child is a container.
#[btf_map]
pub(crate) static PARENTS: HashMap<u64, u32, { MAX_PARENTS as usize }, NO_PREALLOC> = HashMap::new();

/// Children of `PARENTS` that are known to be no agent's.
#[btf_map]
pub(crate) static KNOWN: HashMap<u64, u32, { MAX_KNOWN as usize }, NO_PREALLOC> = HashMap::new();

/// How the names of agents' units begin: longest first, as this kind of map finds them.
#[btf_map]
pub(crate) static NAMES: LpmTrie<[u8; NAME_LEN], u32, { MAX_NAMES as usize }> = LpmTrie::new();

/// New cgroups of such names that nobody has looked at yet.
#[btf_map]
pub(crate) static HELD: HashMap<u64, u32, { MAX_HELD as usize }, NO_PREALLOC> = HashMap::new();

/// One entry: bit N says that some cgroup was held back at level N.
#[btf_map]
pub(crate) static HELD_LEVELS: Array<u32, 1> = Array::new();

/// One entry: where the kernel keeps what is read of a new cgroup.
#[btf_map]
pub(crate) static LAYOUT: Array<Layout, 1> = Array::new();

/// Namespace cookie to listener.
#[btf_map]
pub(crate) static NETNS: HashMap<u64, NetnsEntry, { MAX_NETNS as usize }, NO_PREALLOC> = HashMap::new();

/// Loopback ports that governed processes may not reach or take.
#[btf_map]
pub(crate) static DENY_PORTS: HashMap<u32, u32, { MAX_DENY_PORTS as usize }, NO_PREALLOC> = HashMap::new();

/// Loopback ports that agents may reach whoever listens there, by `relay`.
#[btf_map]
pub(crate) static RELAYS: HashMap<u64, u32, { MAX_RELAYS as usize }, NO_PREALLOC> = HashMap::new();

/// When a relay was reported: by namespace, agent and port. Not pinned: another daemon may hear of it again.
#[btf_map]
pub(crate) static SEEN: LruHashMap<[u64; 2], u64, { MAX_SEEN as usize }> = LruHashMap::new();

/// Sockets made by governed processes.
#[btf_map]
pub(crate) static TAG: SkStorage<Tag> = SkStorage::new();

/// Client sockets that were redirected; UDP sockets with the resolver that they asked last.
#[btf_map]
pub(crate) static CLIENT: SkStorage<Flow> = SkStorage::new();

/// Accepted sockets of redirected connections.
#[btf_map]
pub(crate) static ACCEPTED: SkStorage<Flow> = SkStorage::new();

/// Listeners of governed processes that answered an outside client, and the sockets accepted from them.
#[btf_map]
pub(crate) static INBOUND: Inherited<u32> = Inherited::new();

/// Connections between SYN and acceptance.
#[btf_map]
pub(crate) static FLOWS: HashMap<FlowKey, Flow, { MAX_FLOWS as usize }, NO_PREALLOC> = HashMap::new();

/// DNS queries on their way, and who sent them. Evicts the oldest: what is not found is refused.
#[btf_map]
pub(crate) static QUERIES: LruHashMap<QueryKey, Query, { MAX_QUERIES as usize }> = LruHashMap::new();

/// Counters, see `guard_common::policy::Stat`.
#[btf_map]
pub(crate) static STATS: PerCpuArray<u64, { STAT_COUNT as usize }> = PerCpuArray::new();

/// Denials. Not pinned: it belongs to the daemon that reads it.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(EVENTS_BYTES, 0);
