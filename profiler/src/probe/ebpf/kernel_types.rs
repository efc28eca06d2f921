//! Where the running kernel keeps a thread's pointer to its thread-local storage: looked up in the kernel's own type
//! information (BTF; the kernel's Documentation/bpf/btf.rst).

/// Kinds of types (include/uapi/linux/btf.h, `BTF_KIND_*`).
const STRUCT: u32 = 4;
/// Marks type information (`BTF_MAGIC`).
const MAGIC: u32 = 0xeb9f;
/// Bytes of `struct btf_type`, and of `struct btf_member`.
const TYPE_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;

/// Bytes from the beginning of `struct task_struct` to its `thread.fsbase`; `None` where this kernel does not tell.
pub(super) fn fsbase_in_task() -> Option<u32> {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").ok()?;
    member(&types, "task_struct", "thread")?.checked_add(member(&types, "thread_struct", "fsbase")?)
}

/// Bytes from the beginning of `struct task_struct` to the numbers of its minor and major page faults, which lie one behind the
/// other; `None` where this kernel does not tell, or has them elsewhere.
pub(super) fn faults_in_task() -> Option<u32> {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").ok()?;
    let [minor, major] =
        [member(&types, "task_struct", "min_flt")?, member(&types, "task_struct", "maj_flt")?];
    (minor.checked_add(8) == Some(major)).then_some(minor)
}

/// The offset of a structure's member, in bytes.
fn member(btf: &[u8], structure: &str, member: &str) -> Option<u32> {
    let word = |at: usize| Some(u32::from_le_bytes(btf.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let index = |at: usize| usize::try_from(word(at)?).ok();
    if word(0)? & 0xffff != MAGIC {
        return None;
    }
    let header = index(4)?;
    let (mut at, types_bytes) = (header.checked_add(index(8)?)?, index(12)?);
    let end = at.checked_add(types_bytes)?;
    let strings = header.checked_add(index(16)?)?;
    let is_named = |at: usize, name: &str| {
        let start = strings.checked_add(index(at)?)?;
        let text = btf.get(start..)?.get(..name.len().checked_add(1)?)?;
        Some(text.strip_suffix(&[0]) == Some(name.as_bytes()))
    };
    while at < end {
        let info = word(at.checked_add(4)?)?;
        let (kind, count) = (info >> 24 & 0x1f, usize::try_from(info & 0xffff).ok()?);
        if kind == STRUCT && is_named(at, structure) == Some(true) {
            for number in 0..count {
                let entry = at.checked_add(TYPE_BYTES)?.checked_add(number.checked_mul(MEMBER_BYTES)?)?;
                if is_named(entry, member) == Some(true) {
                    // Where there are bit fields, the upper 8 bits are a width.
                    let has_widths = info >> 31 == 1;
                    let bits = word(entry.checked_add(8)?)?;
                    return Some(if has_widths { bits & 0xff_ffff } else { bits } / 8);
                }
            }
        }
        at = at.checked_add(TYPE_BYTES)?.checked_add(trailer(kind, count)?)?;
    }
    None
}

/// Bytes that follow a type of this kind; `None` for a kind that we do not know.
fn trailer(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        1 | 14 | 17 => 4,
        2 | 7..=12 | 16 | 18 => 0,
        3 => 12,
        STRUCT | 5 | 15 | 19 => count.checked_mul(12)?,
        6 | 13 => count.checked_mul(8)?,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    /// An int, then `struct pair { int first; int second; }` with its members at bits 0 and 64.
    fn types() -> Vec<u8> {
        let strings = b"\0pair\0first\0second\0";
        let mut types: Vec<u32> = vec![0, 1 << 24, 4, 32];
        types.extend([1, STRUCT << 24 | 2, 16, 6, 1, 0, 12, 1, 64]);
        let bytes = u32::try_from(types.len() * 4).unwrap();
        let mut header: Vec<u32> = vec![MAGIC | 1 << 16, 24, 0, bytes, bytes, 19];
        header.extend(types);
        header.iter().flat_map(|word| word.to_le_bytes()).chain(*strings).collect()
    }

    #[test]
    fn members_have_their_offsets() {
        assert_eq!(member(&types(), "pair", "second"), Some(8));
        assert_eq!(member(&types(), "pair", "first"), Some(0));
        assert_eq!(member(&types(), "pair", "third"), None);
        assert_eq!(member(&types(), "par", "first"), None);
    }

    #[test]
    fn damage_is_survived() {
        let whole = types();
        for length in 0..whole.len() {
            member(&whole[..length], "pair", "second");
            let mut flipped = whole.clone();
            flipped[length] ^= 0xff;
            member(&flipped, "pair", "second");
        }
    }
}
