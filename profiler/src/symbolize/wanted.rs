//! Functions that a user names, as people write them: found among the symbols of a file.

use std::str::FromStr;

use object::{Object, ObjectSymbol, SymbolKind};
use regex::Regex;

use super::{
    debug_files::{DebugFile, DebugFiles},
    demangle::demangle,
    elf_names::debug_data,
    image::{Elf, Image, has_section},
};
use crate::target::{
    address::Svma,
    allocator::callers::NamedCode,
    module::{Content, Module},
};

/// Symbols of a file that are looked at, at most.
const MOST_SYMBOLS: usize = 4_000_000;
/// Functions of a file that one name may stand for.
const MOST_FOUND: usize = 4096;
/// Names that are offered where there is none of this name.
const MOST_NEAR: usize = 5;
/// How alike such names are at least (Jaro and Winkler).
const ALIKE: f64 = 0.85;
/// Words that mangled names have no letters for.
const NOT_SPELLED: [&str; 4] = ["operator", "std::", "anonymous", "{"];

/// The name of a function: its symbol, or its readable form with or without its parameters and template arguments. `*`
/// stands for anything, `?` for one character.
#[derive(Clone, Debug)]
pub struct WantedFunction {
    text: String,
    pattern: Regex,
    /// What every symbol of this name has in it.
    letters: Option<String>,
}

/// What is wrong with such a name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "`{0}` is not the name of a function: give a symbol, or a name like `Cache::insert`; `*` stands for anything"
)]
pub struct NoName(String);

impl FromStr for WantedFunction {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Self, NoName> {
        let text = text.trim();
        let escaped = regex::escape(text).replace(r"\*", ".*").replace(r"\?", ".");
        let pattern = Regex::new(&format!("^(?s:{escaped})$")).map_err(|_| NoName(text.to_owned()))?;
        if !text.contains(|c: char| c.is_alphanumeric() || c == '_') {
            return Err(NoName(text.to_owned()));
        }
        let head = text.split(['(', '<']).next().unwrap_or(text);
        let last =
            head.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|word| !word.is_empty());
        let is_spelled = !NOT_SPELLED.iter().any(|word| text.contains(word));
        let letters = last.filter(|_| is_spelled && text.is_ascii()).map(str::to_owned);
        Ok(Self { text: text.to_owned(), pattern, letters })
    }
}

impl WantedFunction {
    /// As it was given.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The readable form of this symbol, if it is one that is meant. Parts that a compiler has made of a function
    /// (`f.part.0`, `f.cold`) are meant with it.
    fn accept(&self, symbol: &str) -> Option<String> {
        if self.letters.as_ref().is_some_and(|letters| !symbol.contains(letters.as_str())) {
            return None;
        }
        let (whole, part) = match symbol.char_indices().skip(1).find(|(_, c)| *c == '.') {
            Some((at, _)) => symbol.split_at(at),
            None => (symbol, ""),
        };
        let readable = demangle(whole);
        let is_it = |name: &str| self.pattern.is_match(name);
        let bare = without_parameters(&readable);
        let is_meant = [symbol, whole, &readable, bare, without_arguments(bare)].into_iter().any(is_it);
        is_meant.then(|| format!("{readable}{part}"))
    }

    /// How much a symbol resembles the name, from 0 to 1.
    fn resemblance(&self, symbol: &str) -> f64 {
        let readable = demangle(symbol);
        let bare = without_arguments(without_parameters(&readable));
        let [mine, theirs] = [&self.text, bare].map(str::to_lowercase);
        let last = mine.rsplit("::").next().unwrap_or(&mine);
        let its_last = theirs.rsplit("::").next().unwrap_or(&theirs);
        let contained =
            last.len() > 2 && theirs.contains(last) || its_last.len() > 3 && mine.contains(its_last);
        strsim::jaro_winkler(&mine, &theirs).max(if contained { 0.9 } else { 0.0 })
    }
}

/// The functions of a module with this name, by address.
pub(super) fn find(module: &Module, files: &DebugFiles, wanted: &WantedFunction) -> Vec<NamedCode> {
    let mut found: Vec<NamedCode> = Vec::new();
    let mut sizeless = false;
    each_symbol(module, files, &mut |name, entry, size| {
        if found.len() < MOST_FOUND
            && let Some(name) = wanted.accept(name)
        {
            sizeless |= size == 0;
            found.push(NamedCode { name, entry: Svma(entry), size });
        }
    });
    found.sort_by(|a, b| {
        (a.entry, std::cmp::Reverse(a.size), &a.name).cmp(&(b.entry, std::cmp::Reverse(b.size), &b.name))
    });
    found.dedup_by_key(|function| function.entry);
    if sizeless {
        // Written in assembler: it ends where the next one begins.
        let mut entries = Vec::new();
        each_symbol(module, files, &mut |_, entry, _| entries.push(entry));
        entries.sort_unstable();
        for function in found.iter_mut().filter(|function| function.size == 0) {
            let next = entries.partition_point(|entry| *entry <= function.entry.0);
            function.size = entries.get(next).map_or(0, |next| next - function.entry.0);
        }
    }
    found
}

/// Names of functions in a module that resemble one that it does not have, best first, with how much they do.
pub(super) fn near(module: &Module, files: &DebugFiles, wanted: &WantedFunction) -> Vec<(f64, String)> {
    let mut near: Vec<(f64, String)> = Vec::new();
    each_symbol(module, files, &mut |name, _, _| {
        let likeness = wanted.resemblance(name);
        if likeness >= ALIKE {
            let readable = demangle(name);
            let bare = without_parameters(&readable).to_owned();
            if near.iter().all(|(_, other)| *other != bare) {
                near.push((likeness, bare));
                near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
                near.truncate(MOST_NEAR);
            }
        }
    });
    near
}

/// Each function that the tables of the module and of its debug file define: symbol, stated address, bytes.
fn each_symbol(module: &Module, files: &DebugFiles, each: &mut dyn FnMut(&str, u64, u64)) {
    let Content::File(file) = &module.content else { return };
    let Ok(image) = Image::map(file) else { return };
    let Some(elf) = image.elf() else { return };
    let mut left = MOST_SYMBOLS;
    let mut of = |elf: &Elf<'_>| {
        for symbol in elf.symbols().chain(elf.dynamic_symbols()).take(left) {
            left = left.saturating_sub(1);
            if symbol.is_definition()
                && symbol.kind() == SymbolKind::Text
                && let Ok(name) = symbol.name()
                && !name.is_empty()
            {
                each(name, symbol.address(), symbol.size());
            }
        }
    };
    of(&elf);
    if elf.symbols().next().is_some() && has_section(&elf, ".symtab") {
        return;
    }
    if let Some(DebugFile { image, .. }) = files.of_module(&module.path, &elf)
        && let Some(elf) = image.elf()
    {
        of(&elf);
    }
    if let Some(image) = debug_data(&image)
        && let Some(elf) = image.elf()
    {
        of(&elf);
    }
}

/// A readable name up to its parameters, and without the type that functions made of templates begin with.
fn without_parameters(name: &str) -> &str {
    let (mut depth, mut begin) = (0_usize, 0);
    let bytes = name.as_bytes();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        // In the midst of a letter there is no sign.
        let Some(rest) = name.get(at..) else {
            at += 1;
            continue;
        };
        if let Some(operator) = rest.strip_prefix("operator").filter(|_| depth == 0) {
            // `operator()`, `operator<`, `operator->`: no brackets.
            let signs =
                operator.len() - operator.trim_start_matches(|c: char| "<>=!+-*/%^&|~,[]".contains(c)).len();
            at += "operator".len() + if operator.starts_with("()") { 2 } else { signs };
            continue;
        }
        match byte {
            b'<' | b'[' | b'{' => depth += 1,
            b'>' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'(' if rest.starts_with("(anonymous namespace)") => at += "(anonymous namespace)".len() - 1,
            b'(' if depth == 0 && at > begin => return &name[begin..at],
            b' ' if depth == 0 && !name[begin..at].ends_with("operator") => begin = at + 1,
            _ => {}
        }
        at += 1;
    }
    // Without parameters, a space is no end of a type.
    name
}

/// The same without the template arguments at its end.
fn without_arguments(name: &str) -> &str {
    if !name.ends_with('>') || name.contains("operator") {
        return name;
    }
    let mut depth = 0_usize;
    for (at, c) in name.char_indices().rev() {
        match c {
            '>' => depth += 1,
            '<' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if at == 0 { name } else { &name[..at] };
        }
    }
    name
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn accepts(wanted: &str, symbol: &str) -> Option<String> {
        wanted.parse::<WantedFunction>().unwrap().accept(symbol)
    }

    #[test]
    fn readable_names_lose_their_parameters() {
        for (name, bare) in [
            ("shelf::Store::add(int)", "shelf::Store::add"),
            ("void shelf::add<int>(int, char*)", "shelf::add<int>"),
            ("std::vector<int (*)(char), A<(B)1> >::push(int)", "std::vector<int (*)(char), A<(B)1> >::push"),
            ("(anonymous namespace)::add(int)", "(anonymous namespace)::add"),
            ("Cache::operator()(int) const", "Cache::operator()"),
            ("Cache::operator<<(int)", "Cache::operator<<"),
            ("operator new(unsigned long)", "operator new"),
            ("core::fmt::Write::write_fmt", "core::fmt::Write::write_fmt"),
            ("malloc", "malloc"),
            ("", ""),
        ] {
            assert_eq!(without_parameters(name), bare);
        }
        assert_eq!(without_arguments("shelf::add<A<int> >"), "shelf::add");
        assert_eq!(without_arguments("shelf::add"), "shelf::add");
        assert_eq!(without_arguments("<A as B>"), "<A as B>");
    }

    #[test]
    fn a_function_is_found_by_each_of_its_names() {
        let symbol = "_ZN5shelf5Store3addEi";
        for wanted in
            ["shelf::Store::add", "shelf::Store::add(int)", "*Store::add", symbol, "shelf::*", "*::a?d"]
        {
            assert_eq!(accepts(wanted, symbol).as_deref(), Some("shelf::Store::add(int)"), "{wanted}");
        }
        for wanted in ["add", "shelf::Store::ad", "shelf::Store::add(long)", "Store::add"] {
            assert_eq!(accepts(wanted, symbol), None, "{wanted}");
        }
        assert_eq!(accepts("operator new", "_Znwm").as_deref(), Some("operator new(unsigned long)"));
        assert_eq!(accepts("grow", "grow.part.0").as_deref(), Some("grow.part.0"));
        assert_eq!(accepts("grow", "grow.cold").as_deref(), Some("grow.cold"));
        assert_eq!(accepts("grow", "grown"), None);
        assert!("*".parse::<WantedFunction>().is_err() && "".parse::<WantedFunction>().is_err());
    }

    #[test]
    fn names_that_are_alike() {
        let wanted: WantedFunction = "cache_insrt".parse().unwrap();
        assert!(wanted.resemblance("cache_insert") > ALIKE);
        assert!(wanted.resemblance("main") < ALIKE);
        let wanted: WantedFunction = "insert".parse().unwrap();
        assert!(wanted.resemblance("_ZN5Cache6insertEi") > ALIKE);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(name in ".{0,60}", symbol in "(_Z|_R)?[NKStEILPRv0-9a-zA-Z_$.@<>(): é]{0,80}") {
            if let Ok(wanted) = name.parse::<WantedFunction>() {
                let _ = (wanted.accept(&symbol), wanted.resemblance(&symbol));
            }
            let _ = without_arguments(without_parameters(&symbol));
        }
    }
}
