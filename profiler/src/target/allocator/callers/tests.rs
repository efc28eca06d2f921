//! Functions of a few bytes, read as those of a file are.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;
use crate::target::allocator::names::{MALLOC, REALLOC};

/// Where the function lies, and what it calls.
const BASE: u64 = 0x1000;
const FILE: u64 = 0x400;
const MALLOC_AT: u64 = 0x2000;
const REALLOC_AT: u64 = 0x2100;
const OTHER: u64 = 0x5000;
const SLOT: u64 = 0x4000;
const OTHER_SLOT: u64 = 0x4008;

const PUSH_RBX: &[u8] = &[0x53];
const POP_RBX: &[u8] = &[0x5b];
const RET: &[u8] = &[0xc3];
/// `mov rbx, rax`, `test rax, rax`, `je +2`, `xor eax, eax`
const KEEP: &[u8] = &[0x48, 0x89, 0xc3];
const TEST: &[u8] = &[0x48, 0x85, 0xc0];
const JE: &[u8] = &[0x74, 0x00];
const XOR_EAX: &[u8] = &[0x31, 0xc0];

fn known(name: &'static str, call: Call) -> Known<'static> {
    Known { name, call, slot: None, entry: None }
}

fn read(code: &[u8]) -> CallsOf {
    let code_at = |_| Vec::new();
    let callees = Callees {
        entries: HashMap::from([
            (MALLOC_AT, known("malloc", MALLOC)),
            (REALLOC_AT, known("realloc", REALLOC)),
        ]),
        slots: HashMap::from([(SLOT, known("malloc", MALLOC))]),
        code_at: &code_at,
    };
    let all_slots = HashSet::from([SLOT, OTHER_SLOT]);
    Reader { code, base: BASE, entry: FileOffset(FILE), callees: &callees, all_slots: &all_slots }.read()
}

/// An instruction of five bytes, behind those given, that leads to an address.
fn leads(before: &[u8], opcode: u8, target: u64) -> Vec<u8> {
    let next = BASE + before.len() as u64 + 5;
    let distance = u32::try_from(target.wrapping_sub(next) & 0xffff_ffff).unwrap();
    [before, &[opcode], &distance.to_le_bytes()].concat()
}

/// `opcode [rip + to the slot]`, of six bytes with this second byte.
fn through(before: &[u8], second: u8, slot: u64) -> Vec<u8> {
    let next = BASE + before.len() as u64 + 6;
    let distance = u32::try_from(slot.wrapping_sub(next) & 0xffff_ffff).unwrap();
    [before, &[0xff, second], &distance.to_le_bytes()].concat()
}

fn call(before: &[u8], target: u64) -> Vec<u8> {
    leads(before, 0xe8, target)
}

#[test]
fn a_call_has_its_probe_on_the_next_instruction_that_the_kernel_emulates() {
    let code = [&call(PUSH_RBX, MALLOC_AT)[..], KEEP, TEST, JE, POP_RBX, RET].concat();
    let calls = read(&code);
    let [site] = calls.sites.as_slice() else { panic!("{calls:?}") };
    assert_eq!((site.at, site.after), (FileOffset(FILE + 1), FileOffset(FILE + 12)));
    assert_eq!((site.behind, site.emulated, site.callee.name.as_str()), (6, true, "malloc"));
    assert_eq!(calls.obstacle, None);
}

#[test]
fn what_changes_the_result_ends_the_search() {
    let code = [&call(PUSH_RBX, MALLOC_AT)[..], KEEP, XOR_EAX, JE, POP_RBX, RET].concat();
    let calls = read(&code);
    assert_eq!((calls.sites[0].behind, calls.sites[0].emulated), (0, false));
    // pop rbx moves the stack.
    let code = [&call(PUSH_RBX, MALLOC_AT)[..], POP_RBX, JE, RET].concat();
    assert_eq!((read(&code).sites[0].behind, read(&code).sites[0].emulated), (0, false));
}

#[test]
fn a_call_through_a_slot_and_jumps_are_found() {
    let code = [&through(PUSH_RBX, 0x15, SLOT)[..], JE, POP_RBX, RET].concat();
    assert_eq!(read(&code).sites.len(), 1);
    let jumps = read(&through(&leads(&[], 0xe9, MALLOC_AT), 0x25, SLOT)).jumps;
    assert_eq!(jumps.iter().map(|jump| jump.emulated).collect::<Vec<_>>(), [true, false]);
    let resized = read(&[&call(PUSH_RBX, REALLOC_AT)[..], RET].concat());
    assert_eq!((resized.resizing, resized.sites.len(), resized.obstacle), (1, 0, None));
    assert_eq!(read(&leads(&[], 0xe9, REALLOC_AT)).jumps.len(), 1);
}

#[test]
fn what_may_be_another_call_is_an_obstacle() {
    let obstacle = |code: &[u8]| read(code).obstacle;
    // call rax; call [rax + 8]
    assert_eq!(obstacle(&[0xff, 0xd0, 0xff, 0x50, 8, 0xc3]), Some(Obstacle::Pointers(2)));
    // A call of another function through its slot is none.
    assert_eq!(obstacle(&through(&[], 0x15, OTHER_SLOT)), None);
    assert_eq!(obstacle(&through(&[], 0x15, OTHER_SLOT + 0x100)), Some(Obstacle::Pointers(1)));
    assert_eq!(obstacle(&call(&[], OTHER)), None);
    // mov rax, [rip + to the slot]; lea rax, [rip + to malloc]; mov eax, malloc
    let to = |target: u64| u32::try_from(target - BASE - 7).unwrap().to_le_bytes();
    let address = Some(Obstacle::Address("malloc".into()));
    assert_eq!(obstacle(&[&[0x48, 0x8b, 0x05][..], &to(SLOT)].concat()), address);
    assert_eq!(obstacle(&[&[0x48, 0x8d, 0x05][..], &to(MALLOC_AT)].concat()), address);
    assert_eq!(obstacle(&[&[0xb8][..], &u32::try_from(MALLOC_AT).unwrap().to_le_bytes()].concat()), address);
    let je = [&[0x0f, 0x84][..], &u32::try_from(MALLOC_AT - BASE - 6).unwrap().to_le_bytes()].concat();
    assert_eq!(obstacle(&je), Some(Obstacle::ConditionalJump("malloc".into())));
    // jmp back behind the call
    let joined = [&call(PUSH_RBX, MALLOC_AT)[..], TEST, &[0xeb, 0xfb]].concat();
    assert_eq!(obstacle(&joined), Some(Obstacle::NoPlace("malloc".into())));
    assert_eq!(obstacle(&[0x06]), Some(Obstacle::Undecodable));
}

#[test]
fn a_part_that_was_moved_away_is_noticed() {
    let je = |target: u64| {
        let distance = u32::try_from(target.wrapping_sub(BASE + 6) & 0xffff_ffff).unwrap();
        [&[0x0f, 0x84][..], &distance.to_le_bytes()].concat()
    };
    assert_eq!(read(&je(OTHER)).leads_to, [Svma(OTHER)]);
    assert_eq!(read(&je(BASE + 2)).leads_to, []);
    assert_eq!(read(&leads(&[], 0xe9, OTHER)).leads_to, [], "a jump to another function");
}

proptest! {
    #[test]
    fn arbitrary_code_never_panics(code in prop::collection::vec(any::<u8>(), 0..300)) {
        let calls = read(&code);
        for site in calls.sites {
            prop_assert!(site.after > site.at && site.after.0 < FILE + code.len() as u64);
        }
    }
}
