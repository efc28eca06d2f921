//! A file that is cut short while we have it mapped must not end us.
//!
//! Touching a page of a file mapping that the file does not have any more raises SIGBUS (mmap(2)). Any program may cut
//! its own files, so one that is watched could end heapscope, by chance or at will. Copying every file beforehand would
//! cost the memory that mapping saves. So SIGBUS is handled: a page that is gone is replaced by one of zeros, the reader
//! goes on, and a mark tells it afterwards that what it read must not be believed. A SIGBUS anywhere else goes where it
//! went before.

use std::{
    io,
    ptr::null_mut,
    sync::{
        Once, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Mappings that can be guarded at once. Files are mapped one module at a time.
pub(super) const MOST: usize = 256;

/// One guarded mapping: its first address (0: the place is free), the address behind it (0 until it is set up), and
/// whether a page was replaced.
struct Place {
    start: AtomicUsize,
    end: AtomicUsize,
    cut: AtomicBool,
}

static PLACES: [Place; MOST] =
    [const { Place { start: AtomicUsize::new(0), end: AtomicUsize::new(0), cut: AtomicBool::new(false) } };
        MOST];

/// What handled SIGBUS before us: Rust's own handler, which reports an overflowed stack.
static PREVIOUS: OnceLock<libc::sigaction> = OnceLock::new();

/// A guarded mapping's place in the table.
#[derive(Debug)]
pub(super) struct Guard(usize);

impl Guard {
    /// Guards a mapping, which is not empty and stays until the guard is dropped or nothing reads it any more.
    pub(super) fn over(mapping: &[u8]) -> io::Result<Self> {
        install();
        let start = mapping.as_ptr().addr();
        let free = PLACES.iter().position(|place| {
            place.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        let index = free.ok_or_else(|| io::Error::other("too many files are mapped at once"))?;
        let place = &PLACES[index];
        place.cut.store(false, Ordering::Relaxed);
        place.end.store(start + mapping.len(), Ordering::Release);
        Ok(Self(index))
    }

    pub(super) fn was_cut(&self) -> bool {
        PLACES[self.0].cut.load(Ordering::Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let place = &PLACES[self.0];
        place.end.store(0, Ordering::Relaxed);
        place.start.store(0, Ordering::Release);
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: sigaction(2) is given a zeroed structure, valid for this plain C type, whose fields are then set; the
        // handler has the signature that SA_SIGINFO asks for. The old action is kept before ours can run.
        unsafe {
            let mut previous: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut previous) != 0 {
                return;
            }
            let _ = PREVIOUS.set(previous);
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_sigbus as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const action, null_mut());
        }
    });
}

/// Uses nothing but atomics and system calls (signal-safety(7)). The signal is raised by the very thread that reads, so
/// the mapping and its place are there.
extern "C" fn on_sigbus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid `siginfo_t`, whose address field SIGBUS fills in.
    let address = unsafe { (*info).si_addr() }.addr();
    if replace_page(address) {
        return;
    }
    pass_on(signal, info, context);
}

fn replace_page(address: usize) -> bool {
    for place in &PLACES {
        let (end, start) = (place.end.load(Ordering::Acquire), place.start.load(Ordering::Relaxed));
        if start == 0 || !(start..end).contains(&address) {
            continue;
        }
        // 4096 divides every page size; a larger page is replaced bit by bit.
        const PAGE: usize = 4096;
        let page = address & !(PAGE - 1);
        // SAFETY: errno belongs to this thread, and the interrupted code must find it as it was. The page replaced
        // lies in a mapping of our own that someone reads right now, hence is there; it is replaced by one that can be
        // read too.
        let replaced = unsafe {
            let errno = libc::__errno_location();
            let before = *errno;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            let at = std::ptr::with_exposed_provenance_mut(page);
            let mapped = libc::mmap(at, PAGE, libc::PROT_READ, flags, -1, 0);
            *errno = before;
            mapped != libc::MAP_FAILED
        };
        if replaced {
            place.cut.store(true, Ordering::Release);
        }
        return replaced;
    }
    false
}

fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = PREVIOUS.get().filter(|previous| {
        previous.sa_flags & libc::SA_SIGINFO != 0 && previous.sa_sigaction > libc::SIG_IGN
    });
    match previous {
        Some(previous) => {
            // SAFETY: with SA_SIGINFO, the field holds a function of this signature (sigaction(2)).
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) =
                unsafe { std::mem::transmute(previous.sa_sigaction) };
            handler(signal, info, context);
        }
        // SAFETY: the default action is always valid. The fault is raised again on return, and ends us.
        None => unsafe {
            libc::signal(signal, libc::SIG_DFL);
        },
    }
}
