//! Allocators that the user names: `alloc=my_malloc(size=0);free=my_free(ptr=0)@libpool.so`.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::Arc,
};

use profiler_common::records::{Call, CallKind};

use super::{Allocator, AllocatorFunction, UNKNOWN_SIZE, is_code, symbols::Symbols};
use crate::target::{
    address::Svma,
    error::TargetError,
    module::{Content, Module},
};

/// The functions of an allocator as its user describes them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CustomAllocator {
    /// By symbol, in the order given.
    functions: Vec<(String, Call)>,
    /// The name of the file that has them; any, where it is not said.
    module: Option<String>,
}

/// What is wrong with such a description.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SpecError {
    /// Not `role=function(…)`.
    #[error("`{part}` is not of the form role=function(argument=index,…), like `alloc=my_malloc(size=0)`")]
    Form {
        /// The part at fault.
        part: String,
    },
    /// No such role.
    #[error(
        "`{role}` is not a role: use alloc, calloc, memalign, posix_memalign, realloc, reallocf, resize or free"
    )]
    Role {
        /// What was given.
        role: String,
    },
    /// An argument that a function of this role does not have.
    #[error("`{role}` has no argument `{argument}`: it takes {}", accepted.join(", "))]
    Argument {
        /// The role.
        role: String,
        /// What was given.
        argument: String,
        /// What there is.
        accepted: &'static [&'static str],
    },
    /// An argument beyond the registers.
    #[error(
        "`{argument}={index}`: an argument is told by its position among the integer arguments, 0 to 5 (rdi rsi rdx rcx \
         r8 r9)"
    )]
    Index {
        /// The argument.
        argument: String,
        /// What was given.
        index: String,
    },
    /// An argument given twice, or two at one place.
    #[error("`{function}`: two arguments cannot share a name or a position")]
    Twice {
        /// The function.
        function: String,
    },
    /// A function given twice.
    #[error("`{function}` is named twice")]
    FunctionTwice {
        /// The function.
        function: String,
    },
    /// Nothing that allocates or nothing that frees.
    #[error("an allocator needs a function that allocates and one that frees: add `{missing}`")]
    Incomplete {
        /// What to add.
        missing: &'static str,
    },
}

/// A role, its arguments where the user does not say, and what else it may have.
struct Role {
    name: &'static str,
    call: Call,
    accepted: &'static [&'static str],
}

const ROLES: &[Role] = &[
    Role { name: "alloc", call: Call::allocate(0), accepted: &["size", "count", "out"] },
    Role { name: "calloc", call: Call::allocate(1).of_array(0), accepted: &["count", "size"] },
    Role { name: "memalign", call: Call::allocate(1), accepted: &["size"] },
    Role { name: "posix_memalign", call: Call::allocate_into(0, 2), accepted: &["out", "size"] },
    Role { name: "realloc", call: Call::reallocate(0, 1), accepted: &["ptr", "size", "count"] },
    Role {
        name: "reallocf",
        call: Call::reallocate(0, 1).but(CallKind::ReallocateOrFree),
        accepted: &["ptr", "size", "count"],
    },
    Role {
        name: "resize",
        call: Call::reallocate(0, 1).but(CallKind::Resize),
        accepted: &["ptr", "size", "count"],
    },
    Role { name: "free", call: Call::free(0), accepted: &["ptr"] },
];

impl FromStr for CustomAllocator {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let (functions, module) = match text.rsplit_once('@') {
            Some((functions, module)) if !module.contains(['(', ')', ';', '=']) => (functions, Some(module)),
            _ => (text, None),
        };
        let form = |part: &str| SpecError::Form { part: part.trim().to_owned() };
        let module = module.map(|name| Some(name.trim()).filter(|name| !name.is_empty()).ok_or(form(text)));
        let parts = functions.split(';').filter(|part| !part.trim().is_empty());
        let functions = parts.map(|part| function(part.trim())).collect::<Result<Vec<_>, _>>()?;
        let mut names = BTreeSet::new();
        if let Some((twice, _)) = functions.iter().find(|(name, _)| !names.insert(name)) {
            return Err(SpecError::FunctionTwice { function: twice.clone() });
        }
        let gives = |(_, call): &(_, Call)| !matches!(call.kind, CallKind::Resize | CallKind::Free);
        if !functions.iter().any(gives) {
            return Err(SpecError::Incomplete { missing: "alloc=FUNCTION(size=0)" });
        }
        if !functions.iter().any(|(_, call)| call.kind == CallKind::Free) {
            return Err(SpecError::Incomplete { missing: "free=FUNCTION(ptr=0)" });
        }
        Ok(Self { functions, module: module.transpose()?.map(str::to_owned) })
    }
}

/// `role=name` or `role=name(argument=index,…)`.
fn function(part: &str) -> Result<(String, Call), SpecError> {
    let form = || SpecError::Form { part: part.to_owned() };
    let (role, rest) = part.split_once('=').ok_or_else(form)?;
    let (name, arguments) = match rest.split_once('(') {
        Some((name, arguments)) => (name, Some(arguments.trim_end().strip_suffix(')').ok_or_else(form)?)),
        None => (rest, None),
    };
    let (role, name) = (role.trim(), name.trim());
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || ")=,".contains(c)) {
        return Err(form());
    }
    let role = ROLES
        .iter()
        .find(|known| known.name == role)
        .ok_or_else(|| SpecError::Role { role: role.to_owned() })?;
    let arguments = arguments.map(|arguments| {
        let parts = arguments.split(',').filter(|part| !part.trim().is_empty());
        parts.map(|part| part.split_once('=').ok_or_else(form)).collect::<Result<Vec<_>, _>>()
    });
    let call = match arguments.transpose()? {
        Some(arguments) => role.with(&arguments, name)?,
        None => role.call,
    };
    Ok((name.to_owned(), call))
}

impl Role {
    /// The call with the arguments given; those not given stay where they usually are.
    fn with(&self, arguments: &[(&str, &str)], function: &str) -> Result<Call, SpecError> {
        let mut call = self.call;
        let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
        for (name, index) in arguments.iter().map(|(name, index)| (name.trim(), index.trim())) {
            let place = index.parse().ok().filter(|place| *place < Call::ARGUMENTS);
            let place = place
                .ok_or_else(|| SpecError::Index { argument: name.to_owned(), index: index.to_owned() })?;
            match name {
                _ if !self.accepted.contains(&name) => {
                    let (role, argument) = (self.name.to_owned(), name.to_owned());
                    return Err(SpecError::Argument { role, argument, accepted: self.accepted });
                }
                "size" => call.size = place,
                "count" => call.count = place,
                "out" => call = Call { kind: CallKind::AllocateInto, block: place, ..call },
                _ => call.block = place,
            }
            if !names.insert(name) || !places.insert(place) {
                return Err(SpecError::Twice { function: function.to_owned() });
            }
        }
        let all = [call.size, call.count, call.block].into_iter().filter(|&place| place < Call::ARGUMENTS);
        let distinct: BTreeSet<u8> = all.clone().collect();
        if distinct.len() < all.count() {
            return Err(SpecError::Twice { function: function.to_owned() });
        }
        Ok(call)
    }
}

impl CustomAllocator {
    /// What reports call it: its first function.
    #[must_use]
    pub fn name(&self) -> &str {
        self.functions.first().map_or("", |(name, _)| name)
    }

    /// The names of its functions.
    pub fn functions(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|(name, _)| name.as_str())
    }

    /// The allocator as this file defines it; `None` where the file has nothing to do with it.
    ///
    /// # Errors
    /// Where the file defines some of the functions only, or one of them more than once, or as data; where it cannot be
    /// read; and where the user named the file, and it defines none.
    pub fn find_in(&self, module: &Arc<Module>) -> Result<Option<Allocator>, TargetError> {
        let is_named = match &self.module {
            Some(wanted) if *wanted != module.name() => return Ok(None),
            wanted => wanted.is_some(),
        };
        if matches!(module.content, Content::Memory(_)) {
            return Ok(None);
        }
        let data = module.data()?;
        let symbols = Symbols::parse(&data)
            .map_err(|reason| TargetError::DamagedElf { path: module.path.clone(), reason })?;
        let found: Vec<_> = self.functions.iter().map(|(name, _)| places(&symbols, module, name)).collect();
        if !is_named && found.iter().all(|places| places.functions.is_empty()) {
            return Ok(None);
        }
        let mut functions = Vec::new();
        for ((name, call), places) in self.functions.iter().zip(found) {
            let unusable = |reason: String| TargetError::CustomFunction {
                path: module.path.clone(),
                function: name.clone(),
                reason,
            };
            let mut entries = places.functions.into_iter();
            let (Some((entry, size)), None) = (entries.next(), entries.next()) else {
                return Err(unusable(places.complaint));
            };
            let (name, aliases, call, entry) = (name.clone(), Vec::new(), *call, Svma(entry));
            functions.push(AllocatorFunction { name, aliases, call, entry, size });
        }
        let (name, module) = (self.name().to_owned(), Arc::clone(module));
        Ok(Some(Allocator { name, module, functions, wrappers: Vec::new(), wrapping: Vec::new() }))
    }
}

/// Where a file has a name.
struct Places {
    /// The functions of that name: addresses and sizes.
    functions: BTreeMap<u64, u64>,
    /// Why they cannot be used, if there is not exactly one.
    complaint: String,
}

fn places(symbols: &Symbols<'_>, module: &Module, name: &str) -> Places {
    let (mut functions, mut is_data) = (BTreeMap::new(), false);
    for symbol in symbols.defined().filter(|symbol| symbol.name == name) {
        if symbol.is_function && is_code(module, symbol.address) {
            let size = if symbol.size == 0 { UNKNOWN_SIZE } else { symbol.size };
            functions.insert(symbol.address, size);
        } else {
            is_data = true;
        }
    }
    let complaint = match functions.len() {
        0 if is_data => "that symbol is not a function".to_owned(),
        0 => "there is no such symbol: it is spelled otherwise, inlined everywhere, or stripped".to_owned(),
        several => format!("{several} functions have that name"),
    };
    Places { functions, complaint }
}

#[cfg(test)]
mod tests;
