//! Demangling with a bound on the output.
//!
//! The symbolizing crate could demangle too, but without a limit: a mangled C++ name of a few hundred bytes can stand for
//! gigabytes of text (every substitution may double it), and symbol tables are written by the target.

use std::fmt::{self, Write};

/// Longest name that is kept, in bytes. Real C++ names of 10,000 bytes exist.
pub const MAX_NAME_BYTES: usize = 16 * 1024;

/// What a stub's name ends in.
const STUB: &str = "@plt";

/// The readable form of a linker symbol: C++ (Itanium ABI) and Rust (legacy and v0), else the symbol itself.
///
/// A symbol version (`memcpy@@GLIBC_2.14`, which some symbol tables append) is cut off; the mark of a stub (`malloc@plt`)
/// stays. A name whose readable form is
/// longer than [`MAX_NAME_BYTES`] stays mangled, and a mangled name longer than that is cut.
#[must_use]
pub fn demangle(symbol: &str) -> String {
    if let Some(function) = symbol.strip_suffix(STUB) {
        return demangle(function) + STUB;
    }
    let symbol = without_version(symbol);
    rust(symbol).or_else(|| cpp(symbol)).unwrap_or_else(|| cut(symbol).to_owned())
}

/// The symbol as it stands in the file, without its version, cut at [`MAX_NAME_BYTES`].
#[must_use]
pub fn keep_mangled(symbol: &str) -> String {
    let symbol = if symbol.ends_with(STUB) { symbol } else { without_version(symbol) };
    cut(symbol).to_owned()
}

fn without_version(symbol: &str) -> &str {
    match symbol.find('@') {
        Some(at) if at > 0 && !symbol.contains(' ') => &symbol[..at],
        _ => symbol,
    }
}

fn cut(symbol: &str) -> &str {
    &symbol[..symbol.floor_char_boundary(MAX_NAME_BYTES)]
}

fn rust(symbol: &str) -> Option<String> {
    let parsed = rustc_demangle::try_demangle(symbol).ok()?;
    let mut text = BoundedText::default();
    // The alternate form leaves out the hash, which tells a reader nothing.
    write!(text, "{parsed:#}").ok()?;
    Some(text.0)
}

fn cpp(symbol: &str) -> Option<String> {
    if !symbol.starts_with("_Z") {
        return None;
    }
    let parsed = cpp_demangle::Symbol::new(symbol).ok()?;
    let mut text = BoundedText::default();
    parsed.structured_demangle(&mut text, &cpp_demangle::DemangleOptions::default()).ok()?;
    Some(text.0)
}

/// Text that refuses to grow beyond [`MAX_NAME_BYTES`].
#[derive(Default)]
struct BoundedText(String);

impl Write for BoundedText {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        if self.0.len() + more.len() > MAX_NAME_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(more);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names() {
        assert_eq!(demangle("_Znwm"), "operator new(unsigned long)");
        assert_eq!(demangle("_ZN5shelf5Store3addEi"), "shelf::Store::add(int)");
        assert_eq!(
            demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"),
            "core::fmt::Write::write_fmt"
        );
        assert_eq!(demangle("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(demangle("memcpy@@GLIBC_2.14"), "memcpy");
        assert_eq!(demangle("_Znwm@@GLIBCXX_3.4"), "operator new(unsigned long)");
        assert_eq!(demangle("malloc"), "malloc");
        assert_eq!(demangle("malloc@plt"), "malloc@plt");
        assert_eq!(demangle("_Znwm@plt"), "operator new(unsigned long)@plt");
        assert_eq!(keep_mangled("_Znwm@plt"), "_Znwm@plt");
        assert_eq!(demangle(""), "");
        assert_eq!(demangle("@"), "@");
    }

    /// Each parameter's type holds the one before it twice, so the text doubles 60 times.
    #[test]
    fn a_name_that_explodes_stays_mangled() {
        let doubled = |times: u32| {
            let mut symbol = String::from("_Z1f1AIiiE");
            for step in 0..times {
                let last = char::from_digit(step % 36, 36).map_or('0', |digit| digit.to_ascii_uppercase());
                let carry = if step >= 36 { "1" } else { "" };
                symbol.push_str(&format!("S_IS{carry}{last}_S{carry}{last}_E"));
            }
            symbol
        };
        // A few steps show that the name means what this test believes.
        assert!(demangle(&doubled(6)).matches("A<int, int>").count() > 100);
        let symbol = doubled(60);
        assert_eq!(demangle(&symbol), symbol);
        let long = "x".repeat(MAX_NAME_BYTES * 2);
        assert_eq!(demangle(&long).len(), MAX_NAME_BYTES);
        assert_eq!(demangle(&"é".repeat(MAX_NAME_BYTES)).len(), MAX_NAME_BYTES);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(symbol in "(_Z|_R|)[NKStEILPRv0-9a-zA-Z_$.@]{0,80}") {
            let _ = demangle(&symbol);
        }
    }
}
