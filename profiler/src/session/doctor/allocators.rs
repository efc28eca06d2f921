//! Which allocators a target has, and on which instruction of each function the probe would sit.

use std::sync::Arc;

use serde::Serialize;

use super::checks::Check;
use crate::{
    report::units::counted,
    target::{
        allocator::{self, Allocator},
        module::Module,
        placement,
    },
};

/// One allocator.
#[derive(Debug, Serialize)]
pub(super) struct AllocatorFacts {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) functions: Vec<FunctionFacts>,
    /// Functions that need no probe: they hand their calls on.
    pub(super) wrappers: Vec<String>,
}

/// One of its functions.
#[derive(Debug, Serialize)]
pub(super) struct FunctionFacts {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) place: Option<Place>,
    /// Why there is no place.
    pub(super) refused: Option<String>,
}

/// Where its probe would sit.
#[derive(Debug, Serialize)]
pub(super) struct Place {
    /// Bytes from the function's entry.
    pub(super) offset_in_function: u32,
    /// Bytes from the beginning of the file.
    pub(super) file_offset: u64,
    pub(super) instruction: String,
    /// Whether the kernel emulates it; else it is single-stepped.
    pub(super) emulated: bool,
}

/// Finds the allocators of these files.
pub(super) fn examine<'m>(
    modules: impl Iterator<Item = &'m Arc<Module>>,
) -> (Vec<AllocatorFacts>, Vec<Check>) {
    let (mut found, mut checks) = (Vec::new(), Vec::new());
    for module in modules {
        match allocator::find_in(module) {
            Ok(allocators) => found.extend(allocators.iter().map(facts)),
            Err(error) => checks.push(Check::warn(
                "allocator",
                format!("{} was not searched: {error}", module.path.display()),
                "an allocator in it will not be watched",
            )),
        }
    }
    for allocator in &found {
        let stepped: Vec<_> =
            named(allocator, |function| function.place.as_ref().is_some_and(|p| !p.emulated));
        let refused: Vec<_> = named(allocator, |function| function.refused.is_some());
        let watched = (allocator.functions.len() - refused.len()) as u64;
        checks.push(Check::ok(
            "allocator",
            format!(
                "{} in {}: {}",
                allocator.name,
                allocator.file,
                counted(watched, "function", "functions")
            ),
        ));
        if !stepped.is_empty() {
            checks.push(Check::warn(
                "allocator",
                format!("{}: {} will be single-stepped", allocator.name, stepped.join(", ")),
                "a call of these costs some ten times more than of others; nothing can be done but to sample",
            ));
        }
        if !refused.is_empty() {
            checks.push(Check::warn(
                "allocator",
                format!("{}: no place for a probe on {}", allocator.name, refused.join(", ")),
                "these calls will not be seen",
            ));
        }
    }
    (found, checks)
}

fn named(allocator: &AllocatorFacts, is_meant: impl Fn(&FunctionFacts) -> bool) -> Vec<&str> {
    let meant = allocator.functions.iter().filter(|function| is_meant(function));
    meant.map(|function| function.name.as_str()).collect()
}

fn facts(allocator: &Allocator) -> AllocatorFacts {
    let module = &allocator.module;
    let functions = allocator.functions.iter().map(|function| {
        let (place, refused) = match placement::place(module, function) {
            Ok(place) => (Some(place), None),
            Err(error) => (None, Some(error.to_string())),
        };
        FunctionFacts {
            name: function.name.clone(),
            aliases: function.aliases.clone(),
            place: place.map(|place| Place {
                offset_in_function: place.offset_in_function,
                file_offset: place.file_offset.0,
                instruction: placement::instruction_at(module, &place),
                emulated: place.emulated,
            }),
            refused,
        }
    });
    AllocatorFacts {
        name: allocator.name.clone(),
        file: module.path.display().to_string(),
        functions: functions.collect(),
        wrappers: allocator.wrappers.clone(),
    }
}
