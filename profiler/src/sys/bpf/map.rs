//! Maps, read and written as the plain structs that both sides share.
//!
//! The kernel copies as many bytes as the map's key and value have, whatever we hand it; so the sizes are checked once,
//! when a map is taken up, and safe code cannot get them wrong.

use std::{
    ffi::CStr,
    io,
    marker::PhantomData,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use bytemuck::{AnyBitPattern, NoUninit, Zeroable};

use super::{
    address_mut,
    batches::{self, Batches},
    call, call_for_fd, command, load_btf, raw,
};

/// Makes a hash map with room for so many elements, whose memory is taken as they come.
///
/// It has type information, as the maps that aya makes: before 6.2 the kernel takes a map into a map of maps only if that one
/// and the first of its kind both have some or have none (`timer_off` in `bpf_map_meta_equal` of kernel/bpf/map_in_map.c,
/// since 5.15: -EINVAL in a map without, -ENOENT in one whose values are a structure).
///
/// # Errors
/// What bpf(2) answers to `BPF_MAP_CREATE`: `ENOMEM` or `E2BIG` where there is no room for its buckets.
pub fn new_hash_map<K, V>(name: &CStr, entries: u32) -> io::Result<OwnedFd> {
    /// `BPF_MAP_TYPE_HASH` and `BPF_F_NO_PREALLOC` of include/uapi/linux/bpf.h.
    const TYPE_HASH: u32 = 1;
    const NO_PREALLOC: u32 = 1;
    #[repr(C)]
    #[derive(Clone, Copy, Zeroable, NoUninit)]
    struct Attributes {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        map_flags: u32,
        inner_map_fd: u32,
        numa_node: u32,
        map_name: [u8; 16],
        map_ifindex: u32,
        btf_fd: u32,
        btf_key_type_id: u32,
        btf_value_type_id: u32,
    }
    let mut attributes = Attributes::zeroed();
    attributes.map_type = TYPE_HASH;
    attributes.key_size = u32::try_from(size_of::<K>()).map_err(io::Error::other)?;
    attributes.value_size = u32::try_from(size_of::<V>()).map_err(io::Error::other)?;
    attributes.max_entries = entries;
    attributes.map_flags = NO_PREALLOC;
    for (to, from) in attributes.map_name.iter_mut().take(15).zip(name.to_bytes()) {
        *to = *from;
    }
    let types = words_as_types(attributes.value_size / 8);
    // A kernel without such information has none of the other maps' either.
    let btf = load_btf(&types).ok().filter(|_| size_of::<K>() == 8 && size_of::<V>().is_multiple_of(8));
    if let Some(btf) = &btf {
        attributes.btf_fd = raw(btf.as_fd());
        (attributes.btf_key_type_id, attributes.btf_value_type_id) = (1, 4);
    }
    call_for_fd(command::MAP_CREATE, &mut attributes)
}

/// Type information (Documentation/bpf/btf.rst): type 1 is a word of eight bytes, 3 an array of so many of them, 2 what that
/// is indexed by, 4 a structure of nothing else.
fn words_as_types(words: u32) -> Vec<u8> {
    /// `BTF_KIND_INT`, `BTF_KIND_ARRAY`, and `BTF_KIND_STRUCT` with one member, where a type's head has its kind.
    const INT: u32 = 1 << 24;
    const ARRAY: u32 = 3 << 24;
    const STRUCTURE: u32 = 4 << 24 | 1;
    const TYPES: [u32; 8] = [1, INT, 8, 64, 1, INT, 4, 32];
    let array = [0, ARRAY, 0, 1, 2, words];
    let structure = [1, STRUCTURE, words * 8, 1, 3, 0];
    let names = b"\0word\0";
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    let types = length(size_of_val(&TYPES) + size_of_val(&array) + size_of_val(&structure));
    // Magic number and version, the head's length, then where types and names begin behind it, and their lengths.
    let head = [0x0001_eb9f, 24, 0, types, types, length(names.len())];
    let words = head.into_iter().chain(TYPES).chain(array).chain(structure);
    words.flat_map(u32::to_le_bytes).chain(names.iter().copied()).collect()
}

/// A map with keys `K` and values `V`.
#[derive(Debug)]
pub struct TypedMap<K, V> {
    fd: OwnedFd,
    types: PhantomData<(K, V)>,
}

#[repr(C)]
#[derive(Clone, Copy, Zeroable, NoUninit)]
struct ElementAttributes {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl<K: NoUninit + AnyBitPattern, V: NoUninit + AnyBitPattern> TypedMap<K, V> {
    /// Takes up a map after comparing its key and value sizes with the types'.
    ///
    /// # Errors
    /// What bpf(2) answers to `BPF_OBJ_GET_INFO_BY_FD`; `InvalidData` where a size differs.
    pub fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        let [_, _, key_size, value_size, ..] = info(map)?;
        if key_size as usize != size_of::<K>() || value_size as usize != size_of::<V>() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "a BPF map has keys of {key_size} and values of {value_size} bytes, not those expected"
                ),
            ));
        }
        Ok(Self { fd: map.try_clone_to_owned()?, types: PhantomData })
    }

    /// Writes one element.
    ///
    /// # Errors
    /// What bpf(2) answers; `E2BIG` where the map is full.
    pub fn update(&self, key: &K, value: &V) -> io::Result<()> {
        let mut attributes = ElementAttributes::zeroed();
        attributes.map_fd = raw(self.fd.as_fd());
        attributes.key = std::ptr::from_ref(key) as u64;
        attributes.value = std::ptr::from_ref(value) as u64;
        call(command::MAP_UPDATE_ELEM, &mut attributes).map(drop)
    }

    /// Writes several elements, each key with the value in the same place. It is one call where the kernel can do that: after a
    /// call that changes a map of maps, it waits until no program uses what was there before (`maybe_wait_bpf_programs` of
    /// kernel/bpf/syscall.c), some ten milliseconds.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn update_all(&self, keys: &[K], values: &[V]) -> io::Result<()> {
        if batches::write(self.fd.as_fd(), keys, values).is_ok() {
            return Ok(());
        }
        keys.iter().zip(values).try_for_each(|(key, value)| self.update(key, value))
    }

    /// Takes one element out of a hash map; one that is not there is no error.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub fn delete(&self, key: &K) -> io::Result<()> {
        let mut attributes = ElementAttributes::zeroed();
        attributes.map_fd = raw(self.fd.as_fd());
        attributes.key = std::ptr::from_ref(key) as u64;
        match call(command::MAP_DELETE_ELEM, &mut attributes) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Reads one element; `None` where there is no such key.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub fn look_up(&self, key: &K) -> io::Result<Option<V>> {
        let mut value = V::zeroed();
        let mut attributes = ElementAttributes::zeroed();
        attributes.map_fd = raw(self.fd.as_fd());
        attributes.key = std::ptr::from_ref(key) as u64;
        attributes.value = std::ptr::from_mut(&mut value) as u64;
        match call(command::MAP_LOOKUP_ELEM, &mut attributes) {
            Ok(_) => Ok(Some(value)),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a whole hash map in batches and hands each element to `each`. Elements that come or go meanwhile may be seen
    /// or not; none that stays is missed.
    ///
    /// # Errors
    /// What bpf(2) answers to `BPF_MAP_LOOKUP_BATCH` (kernel 5.6).
    pub fn for_each(&self, mut each: impl FnMut(&K, &V)) -> io::Result<()> {
        self.for_each_batch(|keys, values| keys.iter().zip(values).for_each(|(key, value)| each(key, value)))
    }

    /// The same, batch by batch: some keys, and their values.
    ///
    /// # Errors
    /// As there.
    pub fn for_each_batch(&self, mut each: impl FnMut(&[K], &[V])) -> io::Result<()> {
        let mut batches = Batches::of(self.fd.as_fd());
        while let Some((keys, values)) = batches.next()? {
            each(keys, values);
        }
        Ok(())
    }
}

impl<V: NoUninit + AnyBitPattern> TypedMap<u32, V> {
    /// Reads elements of an array, from number `first` on, as many as there is room for.
    ///
    /// # Errors
    /// What bpf(2) answers to `BPF_MAP_LOOKUP_BATCH` (kernel 5.6); `InvalidInput` where the array ends before.
    pub fn read_range(&self, first: u32, values: &mut [V]) -> io::Result<()> {
        let mut keys = vec![0u32; values.len()];
        // The key before the first one that is wanted (`generic_map_lookup_batch`, kernel/bpf/syscall.c).
        let before = first.wrapping_sub(1);
        let read = batches::look_up(self.fd.as_fd(), (first != 0).then_some(&before), &mut keys, values)?;
        if read == values.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::InvalidInput)) }
    }
}

impl<K, V> AsFd for TypedMap<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A per-CPU array of words, read as the sum over all CPUs.
#[derive(Debug)]
pub struct PerCpuWords {
    fd: OwnedFd,
    cpus: usize,
}

/// The most CPUs that a kernel for x86-64 can be built for (`CONFIG_NR_CPUS`, arch/x86/Kconfig).
const MAX_CPUS: usize = 8192;

impl PerCpuWords {
    /// Takes up a per-CPU array whose values are words.
    ///
    /// # Errors
    /// What bpf(2) answers to `BPF_OBJ_GET_INFO_BY_FD`; `InvalidData` where key or value have another size.
    pub fn new(map: BorrowedFd<'_>) -> io::Result<Self> {
        let [_, _, key_size, value_size, ..] = info(map)?;
        if key_size != 4 || value_size != 8 {
            return Err(io::Error::from(io::ErrorKind::InvalidData));
        }
        // `0-7`: the last is the highest number that a CPU can have.
        let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").unwrap_or_default();
        let last = possible.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
        let cpus = last.map_or(MAX_CPUS, |last| last.saturating_add(1).min(MAX_CPUS));
        Ok(Self { fd: map.try_clone_to_owned()?, cpus })
    }

    /// The sum of one entry over all CPUs.
    ///
    /// # Errors
    /// What bpf(2) answers.
    pub fn sum(&self, index: u32) -> io::Result<u64> {
        // The kernel copies one word for each possible CPU (`num_possible_cpus`, of which none has a higher number).
        let mut words = vec![0u64; self.cpus];
        let mut attributes = ElementAttributes::zeroed();
        attributes.map_fd = raw(self.fd.as_fd());
        attributes.key = std::ptr::from_ref(&index) as u64;
        attributes.value = address_mut(&mut words);
        call(command::MAP_LOOKUP_ELEM, &mut attributes)?;
        Ok(words.iter().fold(0, |sum, word| sum.wrapping_add(*word)))
    }
}

/// The first words of `struct bpf_map_info`: type, id, key_size, value_size, max_entries.
fn info(map: BorrowedFd<'_>) -> io::Result<[u32; 16]> {
    let mut words = [0u32; 16];
    super::object_info(map, &mut words)?;
    Ok(words)
}
