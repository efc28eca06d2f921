//! The stack walk in user space: the same steps, bounds and ends as the BPF walker (`profiler-ebpf/src/walk.rs`), over
//! the same tables, with memory that comes in through a closure.
//!
//! It is what the BPF side is tested against, and what walks stacks where there is no BPF. A walk begins at the return
//! address of an allocator call, so every address is a return address: the call lies one byte earlier, and that byte is
//! looked up. Only what a signal interrupted is looked up as it is.

use profiler_common::{
    limits::{MAX_FRAMES, PAGE_SHIFT},
    records::walk_end,
    tables::{MappingRange, PageRows, Rule, cfa, rbp, rbx},
};

/// Where the kernel saves rbp for a signal handler, from where rsp points once the handler has returned. That is
/// `struct ucontext` (arch/x86/include/uapi/asm/ucontext.h), whose `uc_mcontext` begins at 40 with r8 to r15, rdi, rsi,
/// rbp, rbx, rdx, rax, rcx, rsp, rip (arch/x86/include/uapi/asm/sigcontext.h).
pub(super) const SAVED_RBP: i32 = 120;
/// The same for rbx.
pub(super) const SAVED_RBX: i32 = 128;
/// The same for rsp.
pub(super) const SAVED_RSP: i32 = 160;
/// The same for rip.
pub(super) const SAVED_RIP: i32 = 168;

/// A saved frame pointer further than this above rsp is not believed, in bytes.
pub const MAX_GUESSED_FRAME: u64 = 1 << 20;

/// The registers that a walk needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registers {
    /// Where the frame goes on: a return address, but in a frame that a signal interrupted.
    pub ip: u64,
    /// rsp when the call has returned.
    pub sp: u64,
    /// rbp; 0 where it is lost.
    pub bp: u64,
    /// rbx.
    pub bx: Rbx,
}

/// Where rbx is. Only the trampolines of the dynamic loader need it ([`cfa::RBX`]), so it is not read before it is
/// asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rbx {
    /// Its value; 0 where it is lost.
    Value(u64),
    /// In the stack, at this address.
    At(u64),
}

/// The tables of a process, as they are in the BPF maps.
#[derive(Clone, Copy, Debug)]
pub struct Tables<'a> {
    /// Executable mappings, sorted by `begin`, not overlapping.
    pub mappings: &'a [MappingRange],
    /// Where the rows of each page lie.
    pub pages: &'a [PageRows],
    /// All chunks end to end, see [`profiler_common::tables::pack_row`].
    pub rows: &'a [u32],
    /// The rules that rows name.
    pub rules: &'a [Rule],
}

impl Tables<'_> {
    /// The rule that holds at an address; [`cfa::NONE`] where its mapping has no table. `None` outside every mapping.
    #[must_use]
    pub fn rule_at(&self, address: u64) -> Option<Rule> {
        let after = self.mappings.partition_point(|mapping| mapping.begin <= address);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        (address < mapping.end).then(|| self.rule_in(mapping, address).unwrap_or_default())
    }

    fn rule_in(&self, mapping: &MappingRange, address: u64) -> Option<Rule> {
        let relative = address.wrapping_sub(mapping.bias);
        let page = u32::try_from(relative >> PAGE_SHIFT).ok().filter(|page| *page < mapping.pages)?;
        let page = self.pages.get(mapping.first_page.checked_add(page)? as usize)?;
        let rows = self.rows.get(page.first as usize..)?.get(..page.count as usize)?;
        let low = relative & ((1 << PAGE_SHIFT) - 1);
        let after = rows.partition_point(|row| u64::from(row & 0xffff) <= low);
        let row = rows.get(after.checked_sub(1)?)?;
        self.rules.get((row >> 16) as usize).copied()
    }
}

/// What one step found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The registers are now those of the caller.
    Caller(Found),
    /// There is no further frame, for a reason of [`walk_end`].
    End(u8),
}

/// How a frame was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// By a rule; its ip is a return address.
    Called,
    /// By a frame-pointer guess; its ip is taken for a return address.
    Guessed,
    /// A signal interrupted it; its ip is the next instruction, not a return address.
    Interrupted,
}

/// Finds the caller of the frame in `registers`; `found` says how that frame itself was found.
///
/// With `o` the offset of the rule's CFA, `n` its addend and `p` the offset of its saved rbp; in all but the last,
/// `ip = *(sp' - 8)`:
///
/// | rule | (sp', bp') |
/// |---|---|
/// | `RSP`, `RBP`, `RBX` | `(sp + o, ..)`, `(bp + o, ..)`, `(bx + o, ..)` |
/// | `RSP_DEREF`, `RBP_DEREF` | `(*(sp + o) + n, ..)`, `(*(bp + o) + n, ..)` |
/// | `GOROUTINE` | `(*(*(sp + o) + n) - *(sp + offset of rbx) + 8, ..)` |
/// | `PLT` | `(sp + o, ..)`, or `(sp + o + 8, ..)` where the address looked up, modulo 16, is at least `n` |
/// | `SAME`, `UNKNOWN` | `(.., bp)`, `(.., 0)` |
/// | `AT_CFA`, `AT_RBP` | `(.., *(sp' + p))`, `(.., *(bp + p))` |
/// | `NONE` | `(bp + 16, *bp)`, where `sp <= bp <= sp + 1 MiB` and `bp` is a multiple of 8 |
/// | `SIGNAL` | `(ip, sp', bp') = (*(sp + 168), *(sp + 160), *(sp + 120))` |
///
/// rbx goes as rbp does, but for `AT_RBP`, and is lost where a frame is guessed. A lost register becomes 0: a frame that
/// needs it then ends the walk, where an old value could go astray unnoticed. On [`Step::End`] the registers are as they
/// were.
pub fn step(
    registers: &mut Registers,
    found: Found,
    tables: &Tables<'_>,
    read_stack: &mut dyn FnMut(u64) -> Option<u64>,
) -> Step {
    match caller(*registers, found, tables, read_stack) {
        Ok((Registers { ip: 0, .. }, _)) => Step::End(walk_end::COMPLETE),
        Ok((caller, found)) => {
            *registers = caller;
            Step::Caller(found)
        }
        Err(end) => Step::End(end),
    }
}

fn caller(
    Registers { ip, sp, bp, bx }: Registers,
    found: Found,
    tables: &Tables<'_>,
    read_stack: &mut dyn FnMut(u64) -> Option<u64>,
) -> Result<(Registers, Found), u8> {
    let looked_up = if found == Found::Interrupted { ip } else { ip.wrapping_sub(1) };
    let rule = tables.rule_at(looked_up).ok_or(walk_end::NO_MAPPING)?;
    let mut read = |address| read_stack(address).ok_or(walk_end::UNREADABLE);
    let at = |base: u64, offset: i32| base.wrapping_add_signed(offset.into());
    let addend = u64::from(rule.cfa_addend);

    let cfa = match rule.cfa_kind {
        cfa::RSP => at(sp, rule.cfa_offset),
        cfa::RBP => at(bp, rule.cfa_offset),
        cfa::RBX => {
            let bx = match bx {
                Rbx::Value(value) => value,
                Rbx::At(address) => read(address)?,
            };
            at(bx, rule.cfa_offset)
        }
        cfa::RSP_DEREF => read(at(sp, rule.cfa_offset))?.wrapping_add(addend),
        cfa::RBP_DEREF => read(at(bp, rule.cfa_offset))?.wrapping_add(addend),
        cfa::GOROUTINE => {
            let goroutine = read(at(sp, rule.cfa_offset))?;
            let high = read(goroutine.wrapping_add(addend))?;
            high.wrapping_sub(read(at(sp, rule.rbx_offset.into()))?).wrapping_add(8)
        }
        cfa::PLT => at(sp, rule.cfa_offset).wrapping_add(8 * u64::from(looked_up % 16 >= addend)),
        cfa::SIGNAL => {
            let bp = read(at(sp, SAVED_RBP))?;
            let bx = Rbx::At(at(sp, SAVED_RBX));
            let (ip, sp) = (read(at(sp, SAVED_RIP))?, read(at(sp, SAVED_RSP))?);
            return Ok((Registers { ip, sp, bp, bx }, Found::Interrupted));
        }
        cfa::END => return Err(walk_end::COMPLETE),
        cfa::NONE if bp >= sp && bp - sp <= MAX_GUESSED_FRAME && bp.is_multiple_of(8) => bp.wrapping_add(16),
        cfa::NONE => return Err(walk_end::NO_TABLE),
        _ => return Err(walk_end::UNSUPPORTED),
    };
    // Another stack may lie anywhere.
    if cfa <= sp && rule.cfa_kind != cfa::GOROUTINE {
        return Err(walk_end::NOT_ADVANCING);
    }
    if rule.cfa_kind == cfa::NONE {
        let caller = Registers { bp: read(bp)?, ip: read(at(cfa, -8))?, sp: cfa, bx: Rbx::Value(0) };
        return Ok((caller, Found::Guessed));
    }
    let bp = match rule.rbp_kind {
        rbp::SAME => bp,
        rbp::AT_CFA => read(at(cfa, rule.rbp_offset.into()))?,
        rbp::AT_RBP => read(at(bp, rule.rbp_offset.into()))?,
        _ => 0,
    };
    let bx = match rule.rbx_kind {
        rbx::SAME => bx,
        rbx::AT_CFA => Rbx::At(at(cfa, rule.rbx_offset.into())),
        _ => Rbx::Value(0),
    };
    Ok((Registers { ip: read(at(cfa, -8))?, sp: cfa, bp, bx }, Found::Called))
}

/// A whole stack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walk {
    /// Return addresses, the allocator's caller first; at most [`MAX_FRAMES`].
    pub frames: Vec<u64>,
    /// Bit n is set where frame n was found by a frame-pointer guess, or behind a signal frame.
    pub guessed: [u64; MAX_FRAMES / 64],
    /// One of [`walk_end`].
    pub end: u8,
}

/// Walks from `registers`, as they are when the allocator has returned, to the thread's first function.
pub fn walk(
    mut registers: Registers,
    tables: &Tables<'_>,
    read_stack: &mut dyn FnMut(u64) -> Option<u64>,
) -> Walk {
    let mut walk = Walk { frames: Vec::new(), guessed: [0; MAX_FRAMES / 64], end: walk_end::TRUNCATED };
    let mut found = Found::Called;
    // Behind a signal frame nothing is certain: the tables hold call sites, and the interrupted instruction may get a
    // neighbour's rule.
    let mut uncertain = false;
    while walk.frames.len() < MAX_FRAMES {
        let index = walk.frames.len();
        uncertain |= found == Found::Interrupted;
        if (found == Found::Guessed || uncertain)
            && let Some(word) = walk.guessed.get_mut(index / 64)
        {
            *word |= 1 << (index % 64);
        }
        walk.frames.push(registers.ip);
        match step(&mut registers, found, tables, read_stack) {
            Step::Caller(how) => found = how,
            Step::End(end) => {
                walk.end = end;
                break;
            }
        }
    }
    walk
}

#[cfg(test)]
mod tests;
