//! An allocator that the user named, while its files are looked for.

use std::{collections::HashSet, sync::Arc};

use crate::target::{
    address::Svma,
    allocator::{Allocator, custom::CustomAllocator},
    error::TargetError,
    module::Module,
};

/// An allocator that the user named.
#[derive(Debug)]
pub(super) struct NamedAllocator {
    allocator: CustomAllocator,
    is_found: bool,
    /// What was wrong with the file that came nearest to defining it.
    complaint: Option<TargetError>,
}

impl NamedAllocator {
    pub(super) fn new(allocator: CustomAllocator) -> Self {
        Self { allocator, is_found: false, complaint: None }
    }

    /// The allocator as this file defines it, unless it has a function that is `known` and so watched already.
    pub(super) fn find_in(&mut self, module: &Arc<Module>, known: &HashSet<Svma>) -> Option<Allocator> {
        let found = self.allocator.find_in(module).and_then(|found| {
            let watched = found.iter().flat_map(|found| &found.functions).find(|f| known.contains(&f.entry));
            match watched {
                Some(function) => Err(TargetError::CustomFunction {
                    path: module.path.clone(),
                    function: function.name.clone(),
                    reason: "it is watched without being named".to_owned(),
                }),
                None => Ok(found),
            }
        });
        match found {
            Ok(found) => {
                self.is_found |= found.is_some();
                found
            }
            Err(complaint) => {
                self.complaint.get_or_insert(complaint);
                None
            }
        }
    }

    /// Fails if it has not been found in any file.
    pub(super) fn require(&mut self, pid: u32) -> Result<(), TargetError> {
        if self.is_found {
            return Ok(());
        }
        Err(self.complaint.take().unwrap_or_else(|| TargetError::NoCustomAllocator {
            pid,
            functions: self.allocator.functions().map(str::to_owned).collect(),
        }))
    }
}
