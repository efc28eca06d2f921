//! The messages of a recording as protobuf has them. docs/hscope.proto is the schema; a test holds the two together.
//!
//! Numbers of fields are never used again for something else. What each field means is said in the schema.
#![expect(
    missing_docs,
    reason = "docs/hscope.proto documents each field; a second copy would only differ from it"
)]

use std::collections::BTreeMap;

use prost::{Enumeration, Message};

pub use super::{
    budget::{Kept, OnlyCaller, Recorded, Sampling, Step, Windowed},
    memory::{Mapped, MappedSite, PoolSite, Pools},
};

#[derive(Clone, PartialEq, Message)]
pub struct Head {
    #[prost(string, tag = "1")]
    pub writer: String,
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    #[prost(string, tag = "3")]
    pub command: String,
    #[prost(string, tag = "4")]
    pub exe: String,
    #[prost(uint64, tag = "5")]
    pub started_ns: u64,
    #[prost(uint64, optional, tag = "6")]
    pub sample_interval: Option<u64>,
    #[prost(string, tag = "7")]
    pub how: String,
    #[prost(string, tag = "8")]
    pub probes: String,
    #[prost(uint64, optional, tag = "9")]
    pub min_size: Option<u64>,
    #[prost(uint64, optional, tag = "10")]
    pub max_size: Option<u64>,
    #[prost(uint64, optional, tag = "11")]
    pub min_age_ns: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Definitions {
    #[prost(message, repeated, tag = "1")]
    pub modules: Vec<Module>,
    #[prost(message, repeated, tag = "2")]
    pub frames: Vec<Frame>,
    #[prost(message, repeated, tag = "3")]
    pub sites: Vec<Site>,
    #[prost(message, repeated, tag = "4")]
    pub mappings: Vec<Mapping>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Module {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(string, optional, tag = "2")]
    pub build_id: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Mapping {
    #[prost(uint32, tag = "1")]
    pub module: u32,
    #[prost(uint64, tag = "2")]
    pub begin: u64,
    #[prost(uint64, tag = "3")]
    pub end: u64,
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Frame {
    #[prost(string, optional, tag = "1")]
    pub function: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub file: Option<String>,
    #[prost(uint32, optional, tag = "3")]
    pub line: Option<u32>,
    #[prost(uint32, optional, tag = "4")]
    pub module: Option<u32>,
    #[prost(uint64, tag = "5")]
    pub address: u64,
    #[prost(uint64, optional, tag = "6")]
    pub module_offset: Option<u64>,
    #[prost(enumeration = "Kind", tag = "7")]
    pub kind: i32,
    #[prost(enumeration = "Role", tag = "8")]
    pub role: i32,
    #[prost(bool, tag = "9")]
    pub inlined: bool,
    #[prost(bool, tag = "10")]
    pub guessed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Kind {
    Native = 0,
    Python = 1,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Role {
    Program = 0,
    Library = 1,
    Runtime = 2,
    Allocator = 3,
    Jit = 4,
    Interpreter = 5,
    Remark = 6,
}

#[derive(Clone, PartialEq, Message)]
pub struct Site {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(string, tag = "2")]
    pub allocator: String,
    #[prost(uint32, repeated, tag = "3")]
    pub stack: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Snapshot {
    #[prost(uint64, tag = "1")]
    pub after_ns: u64,
    #[prost(message, optional, tag = "2")]
    pub resident: Option<Resident>,
    #[prost(string, repeated, tag = "3")]
    pub marks: Vec<String>,
    #[prost(message, optional, tag = "4")]
    pub inuse: Option<Held>,
    /// `Changes`, encoded: read only where what the sites held is asked for.
    #[prost(bytes = "vec", optional, tag = "5")]
    pub changes: Option<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Resident {
    #[prost(uint64, optional, tag = "1")]
    pub rss: Option<u64>,
    #[prost(uint64, optional, tag = "2")]
    pub anon: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub file: Option<u64>,
    #[prost(uint64, optional, tag = "4")]
    pub shmem: Option<u64>,
    #[prost(uint64, optional, tag = "5")]
    pub swap: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    pub mapped: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Changes {
    #[prost(uint32, repeated, tag = "1")]
    pub sites: Vec<u32>,
    #[prost(sint64, repeated, tag = "2")]
    pub alloc_objects: Vec<i64>,
    #[prost(sint64, repeated, tag = "3")]
    pub inuse_objects: Vec<i64>,
    #[prost(sint64, repeated, tag = "4")]
    pub alloc_space: Vec<i64>,
    #[prost(sint64, repeated, tag = "5")]
    pub inuse_space: Vec<i64>,
    #[prost(sint64, repeated, tag = "6")]
    pub temporary_objects: Vec<i64>,
    #[prost(sint64, repeated, tag = "7")]
    pub error_inuse_space: Vec<i64>,
    #[prost(sint64, repeated, tag = "8")]
    pub error_inuse_objects: Vec<i64>,
    #[prost(sint64, repeated, tag = "9")]
    pub error_alloc_space: Vec<i64>,
    #[prost(sint64, repeated, tag = "10")]
    pub error_alloc_objects: Vec<i64>,
    #[prost(bool, tag = "11")]
    pub steady: bool,
}

#[derive(Clone, PartialEq, Message)]
pub struct Quality {
    #[prost(uint64, tag = "1")]
    pub unmatched_frees: u64,
    #[prost(uint64, tag = "2")]
    pub failed_allocations: u64,
    #[prost(uint64, tag = "3")]
    pub filtered_allocations: u64,
    #[prost(uint64, tag = "4")]
    pub unsampled_allocations: u64,
    #[prost(btree_map = "string, uint64", tag = "5")]
    pub lost: BTreeMap<String, u64>,
    #[prost(uint64, tag = "6")]
    pub stacks_walked: u64,
    #[prost(uint64, tag = "7")]
    pub truncated_stacks: u64,
    #[prost(btree_map = "string, uint64", tag = "8")]
    pub incomplete_stacks: BTreeMap<String, u64>,
    #[prost(uint64, tag = "9")]
    pub guessed_frames: u64,
    #[prost(uint64, tag = "10")]
    pub probe_hits: u64,
    #[prost(double, optional, tag = "11")]
    pub overhead_percent: Option<f64>,
    #[prost(string, repeated, tag = "12")]
    pub warnings: Vec<String>,
    #[prost(message, optional, tag = "13")]
    pub recorded: Option<Recorded>,
    #[prost(uint64, tag = "20")]
    pub other_callers: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Account {
    #[prost(message, repeated, tag = "1")]
    pub sites: Vec<SiteAccount>,
    #[prost(message, repeated, tag = "2")]
    pub mapped: Vec<MappedSite>,
    #[prost(message, repeated, tag = "3")]
    pub pools: Vec<PoolSite>,
}

#[derive(Clone, PartialEq, Message)]
pub struct SiteAccount {
    #[prost(uint32, tag = "1")]
    pub site: u32,
    #[prost(message, optional, tag = "2")]
    pub totals: Option<Totals>,
    #[prost(message, optional, tag = "3")]
    pub errors: Option<Totals>,
    #[prost(uint64, optional, tag = "4")]
    pub oldest_ns: Option<u64>,
    #[prost(message, optional, tag = "5")]
    pub peak: Option<Held>,
    #[prost(message, optional, tag = "6")]
    pub exit: Option<Held>,
    #[prost(uint64, tag = "7")]
    pub temporary_objects: u64,
    #[prost(message, repeated, tag = "8")]
    pub sizes: Vec<SizeClass>,
    #[prost(message, repeated, tag = "9")]
    pub threads: Vec<Thread>,
    #[prost(message, repeated, tag = "10")]
    pub generations: Vec<Part>,
    #[prost(message, repeated, tag = "11")]
    pub births: Vec<Part>,
    #[prost(uint64, repeated, tag = "12")]
    pub over_time: Vec<u64>,
    #[prost(message, optional, tag = "13")]
    pub kept: Option<Kept>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Totals {
    #[prost(uint64, tag = "1")]
    pub inuse_space: u64,
    #[prost(uint64, tag = "2")]
    pub inuse_objects: u64,
    #[prost(uint64, tag = "3")]
    pub alloc_space: u64,
    #[prost(uint64, tag = "4")]
    pub alloc_objects: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Held {
    #[prost(uint64, tag = "1")]
    pub space: u64,
    #[prost(uint64, tag = "2")]
    pub objects: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct SizeClass {
    #[prost(uint64, tag = "1")]
    pub smallest: u64,
    #[prost(uint64, optional, tag = "2")]
    pub largest: Option<u64>,
    #[prost(uint64, tag = "3")]
    pub alloc_objects: u64,
    #[prost(uint64, tag = "4")]
    pub inuse_objects: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct Thread {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, tag = "2")]
    pub space: u64,
    #[prost(uint64, tag = "3")]
    pub objects: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Part {
    #[prost(uint32, tag = "1")]
    pub number: u32,
    #[prost(uint64, tag = "2")]
    pub space: u64,
    #[prost(uint64, tag = "3")]
    pub objects: u64,
}

#[derive(Clone, PartialEq, Message)]
pub struct End {
    #[prost(uint64, tag = "1")]
    pub duration_ns: u64,
    #[prost(message, optional, tag = "2")]
    pub totals: Option<Totals>,
    #[prost(message, optional, tag = "3")]
    pub errors: Option<Totals>,
    #[prost(message, optional, tag = "4")]
    pub peak: Option<MomentHeld>,
    #[prost(message, optional, tag = "5")]
    pub exit: Option<MomentHeld>,
    #[prost(message, optional, tag = "6")]
    pub end: Option<Held>,
    #[prost(message, repeated, tag = "7")]
    pub generations: Vec<Generation>,
    #[prost(message, optional, tag = "8")]
    pub mapped: Option<Mapped>,
    #[prost(uint64, tag = "9")]
    pub sites: u64,
    #[prost(uint64, tag = "10")]
    pub birth_span_ns: u64,
    #[prost(enumeration = "At", tag = "11")]
    pub at: i32,
    #[prost(message, repeated, tag = "12")]
    pub births: Vec<Part>,
    #[prost(message, optional, tag = "13")]
    pub pools: Option<Pools>,
    #[prost(message, optional, tag = "14")]
    pub windowed: Option<Windowed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum At {
    End = 0,
    Peak = 1,
    Exit = 2,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct MomentHeld {
    #[prost(uint64, tag = "1")]
    pub after_ns: u64,
    #[prost(message, optional, tag = "2")]
    pub held: Option<Held>,
    #[prost(message, optional, tag = "3")]
    pub error: Option<Held>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Generation {
    #[prost(string, optional, tag = "1")]
    pub mark: Option<String>,
    #[prost(uint64, tag = "2")]
    pub after_ns: u64,
    #[prost(message, optional, tag = "3")]
    pub held: Option<Held>,
    #[prost(message, optional, tag = "4")]
    pub error: Option<Held>,
}
