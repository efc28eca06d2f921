//! The finder on our own process, on the allocators that this machine has, and on programs built for the purpose.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
use super::*;
#[test]
fn show() {
    for path in [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
        "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2.0",
        "/usr/lib/x86_64-linux-musl/libc.so",
        "/lib64/ld-linux-x86-64.so.2",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
    ] {
        let file = std::fs::File::open(path).unwrap();
        let content = Content::File(file);
        let h = crate::target::elf::read_headers(|o, l| content.bytes_at(o, l)).unwrap();
        let m = Arc::new(Module {
            path: path.into(),
            content,
            build_id: h.build_id,
            segments: h.segments,
            deleted: false,
        });
        let t = std::time::Instant::now();
        let f = find_in(&m).unwrap();
        println!("== {path} {:?}", t.elapsed());
        for a in f {
            println!(" {} wrappers {:?}", a.name, a.wrappers);
            for f in &a.functions {
                let p = crate::target::placement::place(&m, f);
                println!(
                    "   {} {:?} {:?} {} {} -> {}",
                    f.name,
                    f.kind,
                    f.aliases,
                    f.entry,
                    f.size,
                    match p {
                        Ok(p) => format!(
                            "+{} {} {} {}",
                            p.offset_in_function, p.instruction, p.emulated, p.stack_offset
                        ),
                        Err(e) => e.to_string(),
                    }
                );
            }
        }
    }
}
