//! What the running kernel says of itself in its type information (BTF; the kernel's Documentation/bpf/btf.rst): where it keeps
//! a thread's pointer to its thread-local storage, and which numbers its functions have.

/// Kinds of types (include/uapi/linux/btf.h, `BTF_KIND_*`).
const STRUCT: u32 = 4;
const FUNCTION: u32 = 12;
/// Marks type information (`BTF_MAGIC`).
const MAGIC: u32 = 0xeb9f;
/// Bytes of `struct btf_type`, and of `struct btf_member`.
const TYPE_BYTES: usize = 12;
const MEMBER_BYTES: usize = 12;

/// The kernel's type information; empty where it has none.
pub(super) struct KernelTypes(Vec<u8>);

impl KernelTypes {
    /// Reads it.
    pub(super) fn read() -> Self {
        Self(std::fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default())
    }

    /// Bytes from the beginning of `struct task_struct` to its `thread.fsbase`; `None` where this kernel does not tell.
    pub(super) fn fsbase_in_task(&self) -> Option<u32> {
        self.member("task_struct", "thread")?.checked_add(self.member("thread_struct", "fsbase")?)
    }

    /// Bytes from the beginning of `struct task_struct` to the numbers of its minor and major page faults, which lie one behind
    /// the other; `None` where this kernel does not tell, or has them elsewhere.
    pub(super) fn faults_in_task(&self) -> Option<u32> {
        let [minor, major] = [self.member("task_struct", "min_flt")?, self.member("task_struct", "maj_flt")?];
        (minor.checked_add(8) == Some(major)).then_some(minor)
    }

    /// The numbers of the functions with these names; `None` where one of them is not there.
    pub(super) fn functions<const N: usize>(&self, names: [&str; N]) -> Option<[u32; N]> {
        let mut found = [0; N];
        self.find(FUNCTION, |at, number, _| {
            for (name, found) in names.iter().zip(&mut found) {
                if *found == 0 && self.is_named(at, name) == Some(true) {
                    *found = number;
                }
            }
            (!found.contains(&0)).then_some(())
        })?;
        Some(found)
    }

    /// The offset of a structure's member, in bytes.
    fn member(&self, structure: &str, member: &str) -> Option<u32> {
        self.find(STRUCT, |at, _, info| {
            if self.is_named(at, structure) != Some(true) {
                return None;
            }
            let members = 0..usize::try_from(info & 0xffff).ok()?;
            members.into_iter().find_map(|number| {
                let entry = at.checked_add(TYPE_BYTES)?.checked_add(number.checked_mul(MEMBER_BYTES)?)?;
                if self.is_named(entry, member) != Some(true) {
                    return None;
                }
                // Where there are bit fields, the upper 8 bits are a width.
                let has_widths = info >> 31 == 1;
                let bits = self.word(entry.checked_add(8)?)?;
                Some(if has_widths { bits & 0xff_ffff } else { bits } / 8)
            })
        })
    }

    /// Goes through the types of one kind until `found` has an answer; it is told where the type begins, its number, and the
    /// word with its kind and how many members it has.
    fn find<T>(&self, wanted: u32, mut found: impl FnMut(usize, u32, u32) -> Option<T>) -> Option<T> {
        if self.word(0)? & 0xffff != MAGIC {
            return None;
        }
        let header = self.index(4)?;
        let (mut at, types_bytes) = (header.checked_add(self.index(8)?)?, self.index(12)?);
        let end = at.checked_add(types_bytes)?;
        // Number 0 is `void`, which is not written down.
        let mut number = 1;
        while at < end {
            let info = self.word(at.checked_add(4)?)?;
            let kind = info >> 24 & 0x1f;
            if kind == wanted
                && let Some(answer) = found(at, number, info)
            {
                return Some(answer);
            }
            let count = usize::try_from(info & 0xffff).ok()?;
            at = at.checked_add(TYPE_BYTES)?.checked_add(trailer(kind, count)?)?;
            number += 1;
        }
        None
    }

    /// Whether the type or member that begins here has this name.
    fn is_named(&self, at: usize, name: &str) -> Option<bool> {
        let strings = self.index(4)?.checked_add(self.index(16)?)?;
        let start = strings.checked_add(self.index(at)?)?;
        let text = self.0.get(start..)?.get(..name.len().checked_add(1)?)?;
        Some(text.strip_suffix(&[0]) == Some(name.as_bytes()))
    }

    fn word(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.0.get(at..at.checked_add(4)?)?.try_into().ok()?))
    }

    fn index(&self, at: usize) -> Option<usize> {
        usize::try_from(self.word(at)?).ok()
    }
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

    /// An int, then `struct pair { int first; int second; }` with its members at bits 0 and 64, then functions `first` and
    /// `second`.
    fn types() -> Vec<u8> {
        let strings = b"\0pair\0first\0second\0";
        let mut types: Vec<u32> = vec![0, 1 << 24, 4, 32];
        types.extend([1, STRUCT << 24 | 2, 16, 6, 1, 0, 12, 1, 64]);
        types.extend([6, FUNCTION << 24, 1, 12, FUNCTION << 24, 1]);
        let bytes = u32::try_from(types.len() * 4).unwrap();
        let mut header: Vec<u32> = vec![MAGIC | 1 << 16, 24, 0, bytes, bytes, 19];
        header.extend(types);
        header.iter().flat_map(|word| word.to_le_bytes()).chain(*strings).collect()
    }

    fn member(types: &[u8], structure: &str, member: &str) -> Option<u32> {
        KernelTypes(types.to_vec()).member(structure, member)
    }

    fn functions<const N: usize>(types: &[u8], names: [&str; N]) -> Option<[u32; N]> {
        KernelTypes(types.to_vec()).functions(names)
    }

    #[test]
    fn members_have_their_offsets() {
        assert_eq!(member(&types(), "pair", "second"), Some(8));
        assert_eq!(member(&types(), "pair", "first"), Some(0));
        assert_eq!(member(&types(), "pair", "third"), None);
        assert_eq!(member(&types(), "par", "first"), None);
    }

    #[test]
    fn functions_have_their_numbers() {
        assert_eq!(functions(&types(), ["second", "first"]), Some([4, 3]));
        assert_eq!(functions(&types(), ["pair"]), None);
        assert_eq!(functions(&types(), ["first", "third"]), None);
    }

    #[test]
    fn this_kernel_is_read_as_by_others() {
        let kernel = KernelTypes::read();
        let Ok(others) = aya_obj::btf::Btf::from_sys_fs() else { return };
        let by_others = |name| others.id_by_type_name_kind(name, aya_obj::btf::BtfKind::Func).ok();
        for name in ["bpf_session_is_return", "do_exit", "there is none"] {
            assert_eq!(kernel.functions([name]).map(|[number]| number), by_others(name), "{name}");
        }
    }

    #[test]
    fn damage_is_survived() {
        let whole = types();
        for length in 0..whole.len() {
            member(&whole[..length], "pair", "second");
            functions(&whole[..length], ["second"]);
            let mut flipped = whole.clone();
            flipped[length] ^= 0xff;
            member(&flipped, "pair", "second");
            functions(&flipped, ["second"]);
        }
    }
}
