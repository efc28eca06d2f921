//! Which functions only hand their call on to another function that is probed anyway.
//!
//! `operator new[]` that jumps to `operator new`, or `reallocarray` that multiplies and jumps to `realloc`, would show
//! each block twice. But a function that calls another one *on some paths only* must keep its probe: glibc's `realloc`
//! jumps to `malloc` when it is given no block, and does its own work otherwise.
//!
//! So a function is a wrapper only if every path from its entry hands on to a function of the same class, or ends without
//! having given or taken a block.

use std::collections::{HashMap, HashSet};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind, Register,
};
use profiler_common::records::{Call, CallKind};

use crate::target::placement::{is_write, near_target};

/// Steps of a search, after which the function is taken to do its own work. Wrappers have a few dozen instructions.
const MAX_STEPS: usize = 2000;

/// What calls of a file can lead to, and what is known of each of these functions.
pub(super) struct Callees<'a, T = Call> {
    /// The functions, by stated address.
    pub(super) entries: HashMap<u64, T>,
    /// The slots through which such functions are called, here or in another file, by stated address.
    pub(super) slots: HashMap<u64, T>,
    /// At most 16 bytes of code at a stated address; empty where there is none.
    pub(super) code_at: &'a dyn Fn(u64) -> Vec<u8>,
}

impl<T: Copy> Callees<'_, T> {
    /// The function that a call or jump of this instruction leads to, directly, through a slot or through a PLT stub.
    pub(super) fn of(&self, instruction: &Instruction) -> Option<T> {
        match near_target(instruction) {
            Some(target) => self.at(target),
            None => self.through_slot(instruction),
        }
    }

    /// The function at this address, or the one that the PLT stub there leads to.
    pub(super) fn at(&self, target: u64) -> Option<T> {
        self.entries.get(&target).copied().or_else(|| {
            let code = (self.code_at)(target);
            let mut stub = Decoder::with_ip(64, &code, target, DecoderOptions::NONE).into_iter();
            let jump = stub.find(|instruction| instruction.mnemonic() != Mnemonic::Endbr64)?;
            (jump.flow_control() == FlowControl::IndirectBranch).then(|| self.through_slot(&jump))?
        })
    }

    fn through_slot(&self, instruction: &Instruction) -> Option<T> {
        let in_memory = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::Memory;
        let slot = (in_memory && instruction.is_ip_rel_memory_operand())
            .then(|| instruction.ip_rel_memory_address())?;
        self.slots.get(&slot).copied()
    }
}

/// One path through the function, at one of its instructions.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Path {
    address: u64,
    /// Whether rax holds a constant: an error's return value, not a block.
    returns_constant: bool,
    /// Whether memory other than the stack was written: what a function that frees cannot do without.
    wrote_memory: bool,
}

/// Whether the function with this code only hands its call on.
pub(super) fn is_wrapper(code: &[u8], entry: u64, call: Call, callees: &Callees<'_>) -> bool {
    let end = entry.saturating_add(code.len() as u64);
    let mut info = InstructionInfoFactory::new();
    let mut open = vec![Path { address: entry, returns_constant: false, wrote_memory: false }];
    let mut seen = HashSet::new();
    let mut hands_on = false;
    while let Some(mut path) = open.pop() {
        if !seen.insert(path) {
            continue;
        }
        let position = path.address.checked_sub(entry).and_then(|offset| usize::try_from(offset).ok());
        let Some(rest) = position.and_then(|position| code.get(position..)) else { return false };
        let instruction = Decoder::with_ip(64, rest, path.address, DecoderOptions::NONE).decode();
        if instruction.is_invalid() || seen.len() > MAX_STEPS {
            return false;
        }
        let to_same_class =
            callees.of(&instruction).is_some_and(|callee| class(callee.kind) == class(call.kind));
        let inside = near_target(&instruction).filter(|target| (entry..end).contains(target));
        match instruction.flow_control() {
            FlowControl::Next => {
                path.step(&instruction, &mut info);
                open.push(path);
            }
            FlowControl::Call | FlowControl::IndirectCall | FlowControl::IndirectBranch if to_same_class => {
                hands_on = true;
            }
            // Another call, of `__errno_location` perhaps: what it leaves in rax is no constant.
            FlowControl::Call | FlowControl::IndirectCall if returns_its_block(call) => {
                open.push(Path { address: instruction.next_ip(), returns_constant: false, ..path });
            }
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                match inside {
                    Some(target) => open.push(Path { address: target, ..path }),
                    None if to_same_class => hands_on = true,
                    None => return false,
                }
                if instruction.flow_control() == FlowControl::ConditionalBranch {
                    open.push(Path { address: instruction.next_ip(), ..path });
                }
            }
            FlowControl::Return if path.did_nothing(call.kind) => {}
            // ud2: the program ends here.
            FlowControl::Exception => {}
            _ => return false,
        }
    }
    hands_on
}

impl Path {
    fn step(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let info = info.info(instruction);
        let writes_rax = |used: &iced_x86::UsedRegister| {
            used.register().full_register() == Register::RAX && is_write(used.access())
        };
        if info.used_registers().iter().any(writes_rax) {
            self.returns_constant = sets_constant(instruction);
        }
        let writes_memory =
            |used: &iced_x86::UsedMemory| used.base() != Register::RSP && is_write(used.access());
        self.wrote_memory |= info.used_memory().iter().any(writes_memory);
        self.address = instruction.next_ip();
    }

    /// Whether a return here gives no block, or takes none.
    fn did_nothing(&self, kind: CallKind) -> bool {
        if kind == CallKind::Free { !self.wrote_memory } else { self.returns_constant }
    }
}

/// Whether a constant in rax at the end means that there was no block, whatever was called before. Not so with
/// posix_memalign, which stores the block elsewhere, nor with realloc and free, which may have taken one.
fn returns_its_block(call: Call) -> bool {
    // reallocarray refuses a product that overflows before it looks at the block.
    call.kind == CallKind::Allocate || call.kind == CallKind::Reallocate && call.count != Call::ONE
}

/// `xor eax, eax` or `mov eax, constant`.
fn sets_constant(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Xor => instruction.op0_register() == instruction.op1_register(),
        Mnemonic::Mov => matches!(instruction.op1_kind(), OpKind::Immediate32 | OpKind::Immediate32to64),
        _ => false,
    }
}

/// Functions of one class do the same with their blocks: give one, change one, take one, or end them all.
fn class(kind: CallKind) -> u8 {
    match kind {
        CallKind::Allocate | CallKind::AllocateInto => 0,
        CallKind::Reallocate => 1,
        CallKind::ReallocateOrFree => 2,
        CallKind::Resize => 3,
        CallKind::Free => 4,
        CallKind::Exit => 5,
        // Never among the functions of an allocator.
        CallKind::Map | CallKind::Unmap | CallKind::Remap | CallKind::Break => 6,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::target::allocator::names::{
        CALLOC, FREE, MALLOC, MEMALIGN, POSIX_MEMALIGN, REALLOC, REALLOCARRAY,
    };

    /// Where the function under test, the probed functions, a PLT stub and its slot lie.
    const ENTRY: u64 = 0x1000;
    const MALLOC_AT: u64 = 0x2000;
    const REALLOC_AT: u64 = 0x2100;
    const FREE_AT: u64 = 0x2200;
    const STUB_OF_REALLOC: u64 = 0x3000;
    const SLOT_OF_REALLOC: u64 = 0x4000;
    const INTERNAL: u64 = 0x5000;

    const TEST_RDI: &[u8] = &[0x48, 0x85, 0xff];
    const PUSH_RBX: &[u8] = &[0x53];
    const POP_RBX: &[u8] = &[0x5b];
    const XOR_EAX: &[u8] = &[0x31, 0xc0];
    const RET: &[u8] = &[0xc3];
    /// `mov [rsi], rdi`
    const STORE: &[u8] = &[0x48, 0x89, 0x3e];

    /// An instruction of five bytes that goes to an address, in a function whose bytes so far are given.
    fn goes_to(opcode: u8, before: &[u8], target: u64) -> Vec<u8> {
        let next = ENTRY + before.len() as u64 + 5;
        let distance = u32::try_from(target.wrapping_sub(next) & 0xffff_ffff).unwrap_or_default();
        [&[opcode][..], &distance.to_le_bytes()].concat()
    }

    fn jmp(before: &[u8], target: u64) -> Vec<u8> {
        [before, &goes_to(0xe9, before, target)].concat()
    }

    fn call(before: &[u8], target: u64) -> Vec<u8> {
        [before, &goes_to(0xe8, before, target)].concat()
    }

    /// Skips `length` bytes if the flags say zero.
    fn je_over(length: u8) -> [u8; 2] {
        [0x74, length]
    }

    fn wraps(call: Call, code: &[u8]) -> bool {
        let code_at = |address| match address {
            // endbr64; bnd jmp [rip + to the slot]
            STUB_OF_REALLOC => vec![0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 0xf5, 0x0f, 0, 0],
            _ => Vec::new(),
        };
        let callees = Callees {
            entries: HashMap::from([(MALLOC_AT, MALLOC), (REALLOC_AT, REALLOC), (FREE_AT, FREE)]),
            slots: HashMap::from([(SLOT_OF_REALLOC, REALLOC)]),
            code_at: &code_at,
        };
        is_wrapper(code, ENTRY, call, &callees)
    }

    #[test]
    fn a_jump_to_the_same_class_is_a_wrapper_and_to_another_is_not() {
        assert!(wraps(MALLOC, &jmp(&[], MALLOC_AT)));
        assert!(wraps(MEMALIGN, &jmp(&[0xf3, 0x0f, 0x1e, 0xfa], MALLOC_AT)));
        assert!(wraps(REALLOCARRAY, &jmp(&[], REALLOC_AT)));
        assert!(wraps(FREE, &jmp(&[], FREE_AT)));
        assert!(!wraps(REALLOC, &jmp(&[], MALLOC_AT)));
        assert!(!wraps(MALLOC, &jmp(&[], FREE_AT)));
        assert!(!wraps(MALLOC, &jmp(&[], INTERNAL)));
        assert!(!wraps(MALLOC, &jmp(&[], MALLOC_AT + 1)));
    }

    #[test]
    fn a_call_through_the_plt_or_its_slot_counts() {
        assert!(wraps(REALLOCARRAY, &jmp(&[], STUB_OF_REALLOC)));
        // jmp [rip + to the slot]; call [rip + to the slot]; ret
        assert!(wraps(REALLOCARRAY, &[0xff, 0x25, 0xfa, 0x2f, 0, 0]));
        assert!(wraps(REALLOCARRAY, &[0xff, 0x15, 0xfa, 0x2f, 0, 0, 0xc3]));
        assert!(!wraps(REALLOCARRAY, &[0xff, 0x25, 0xf9, 0x2f, 0, 0]));
        assert!(!wraps(FREE, &jmp(&[], STUB_OF_REALLOC)));
    }

    #[test]
    fn glibc_realloc_is_no_wrapper_of_malloc_nor_its_memalign() {
        // test; je to `jmp malloc`; else its own work.
        let own = [TEST_RDI, &je_over(5)].concat();
        let memalign = jmp(&jmp(&own, INTERNAL), MALLOC_AT);
        assert!(!wraps(REALLOC, &memalign));
        assert!(!wraps(MEMALIGN, &memalign));
        // The same with a way of its own that needs no call: it takes the block from a list.
        let from_list = jmp(&[TEST_RDI, &je_over(4), &[0x48, 0x8b, 0x06], RET].concat(), MALLOC_AT);
        assert!(!wraps(MALLOC, &from_list));
    }

    #[test]
    fn a_path_that_fails_does_not_count() {
        // reallocarray: mul; jo over the jump to `errno = 12; return NULL`.
        let multiply = [&[0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x48, 0x89, 0xc6][..], &[0x70, 5]].concat();
        let good = jmp(&multiply, REALLOC_AT);
        let thread_local_errno = [&[0x64, 0xc7, 0x00, 12, 0, 0, 0][..], XOR_EAX, RET].concat();
        assert!(wraps(REALLOCARRAY, &[&good[..], &thread_local_errno].concat()));
        // The same with `*__errno_location() = 12`.
        let errno = |stack: &[u8]| {
            [&call(stack, INTERNAL)[..], &[0xc7, 0x00, 12, 0, 0, 0], XOR_EAX, POP_RBX, RET].concat()
        };
        assert!(wraps(REALLOCARRAY, &errno(&[&good[..], PUSH_RBX].concat())));
        // posix_memalign that fails with EINVAL, or calls, stores and returns 0.
        let fails = [TEST_RDI, &je_over(6), &[0xb8, 22, 0, 0, 0], RET, PUSH_RBX].concat();
        let stores = [&call(&fails, MALLOC_AT)[..], &[0x48, 0x89, 0x03], XOR_EAX, POP_RBX, RET].concat();
        assert!(wraps(POSIX_MEMALIGN, &stores));
        // But if what it calls is its own, the constant says nothing.
        let own = [&call(PUSH_RBX, INTERNAL)[..], &[0x48, 0x89, 0x03], XOR_EAX, POP_RBX, RET].concat();
        let mixed =
            jmp(&[TEST_RDI, &je_over(u8::try_from(own.len()).unwrap_or_default())].concat(), MALLOC_AT);
        assert!(!wraps(POSIX_MEMALIGN, &own));
        assert!(!wraps(POSIX_MEMALIGN, &call(&mixed, INTERNAL)));
        // A call of its own whose result is returned.
        assert!(!wraps(CALLOC, &[&call(PUSH_RBX, INTERNAL)[..], POP_RBX, RET].concat()));
        assert!(!wraps(MALLOC, &[XOR_EAX, RET].concat()), "fails always, hands on never");
    }

    #[test]
    fn a_free_that_writes_has_freed() {
        let nothing_to_free = [TEST_RDI, &[0x75, 1], RET].concat();
        assert!(wraps(FREE, &jmp(&nothing_to_free, FREE_AT)));
        let puts_into_list = [TEST_RDI, &[0x75, 4], STORE, RET].concat();
        assert!(!wraps(FREE, &jmp(&puts_into_list, FREE_AT)));
        let saves_register = [PUSH_RBX, TEST_RDI, &[0x75, 2], POP_RBX, RET, POP_RBX].concat();
        assert!(wraps(FREE, &jmp(&saves_register, FREE_AT)));
    }

    #[test]
    fn loops_damage_and_unknown_jumps_end_the_search() {
        assert!(!wraps(MALLOC, &[0xeb, 0xfe]), "jumps to itself");
        assert!(wraps(MALLOC, &jmp(&[TEST_RDI, &[0x74, 0xfb]].concat(), MALLOC_AT)), "loops before it");
        assert!(!wraps(MALLOC, &[0x06]));
        assert!(!wraps(MALLOC, &[]));
        assert!(!wraps(MALLOC, TEST_RDI), "runs out of its end");
        assert!(!wraps(MALLOC, &[0xff, 0xe0]), "jmp rax");
        assert!(!wraps(MALLOC, &vec![0x90; 100_000]));
    }

    proptest! {
        #[test]
        fn arbitrary_code_never_panics(code in prop::collection::vec(any::<u8>(), 0..300)) {
            for call in [MALLOC, POSIX_MEMALIGN, REALLOCARRAY, FREE] {
                let _ = wraps(call, &code);
            }
        }
    }
}
