//! Probes go where a file has an allocator, on the C library's `exit`, and on its functions that map memory.

use std::{collections::HashSet, sync::Arc};

use anyhow::Context;
use profiler_common::{growth::FAULT_SITE, mappings::MAPPING_SITE, pools::POOL_SITE};

use super::observation::Observation;
use crate::{
    probe::{
        Position, ProbePoint,
        ebpf::{PythonEvent, PythonPoint},
    },
    target::{
        address::Svma,
        allocator::{
            self, Allocator, AllocatorFunction,
            c_library::{find_exit, find_mapping_functions},
        },
        error::TargetError,
        module::Module,
        placement,
    },
};

impl Observation {
    /// Finds the allocators that a file defines and probes them.
    pub(super) fn probe_allocators(&mut self, module: &Arc<Module>) -> anyhow::Result<()> {
        let found = match allocator::find_in(module) {
            Ok(found) => found,
            Err(error) => {
                self.warn(format!("{} was not searched for an allocator: {error}", module.path.display()));
                return Ok(());
            }
        };
        if self.growth.is_some() {
            // Nothing of an allocator is watched. Only a C library has the functions that map memory.
            return if found.is_empty() { Ok(()) } else { self.probe_mapping_functions(module) };
        }
        // A file that is or contains a C library has an allocator; the symbols of all others need no second look.
        let may_have_exit = !found.is_empty();
        if self.told.is_some() {
            self.probe_told(module)?;
            if may_have_exit {
                self.probe_exit(module)?;
                self.probe_mapping_functions(module)?;
            }
            return Ok(());
        }
        let known: HashSet<Svma> =
            found.iter().flat_map(|known| &known.functions).map(|function| function.entry).collect();
        for allocator in found {
            self.attach(allocator, false)?;
        }
        for index in 0..self.custom.len() {
            let Some(custom) = self.custom.get_mut(index) else { continue };
            let found = custom.find_in(module, &known);
            if let Some(found) = found {
                self.attach(found, true)?;
            }
        }
        if may_have_exit {
            self.probe_exit(module)?;
            self.probe_mapping_functions(module)?;
        }
        Ok(())
    }

    /// Probes the C library's `exit`, if this is the file that has it.
    fn probe_exit(&mut self, module: &Arc<Module>) -> anyhow::Result<()> {
        // What cannot be read has been named where its allocator was looked for.
        let Ok(Some(exit)) = find_exit(module) else { return Ok(()) };
        let Some(point) = point_of(module, &exit) else { return Ok(()) };
        self.probe.attach(&[point]).with_context(|| format!("cannot probe exit in {}", module.path.display()))
    }

    /// Probes the C library's functions that map memory, if they are to be watched and this is the file that has them.
    fn probe_mapping_functions(&mut self, module: &Arc<Module>) -> anyhow::Result<()> {
        if self.mapped.is_none() {
            return Ok(());
        }
        let mut points = Vec::new();
        for function in find_mapping_functions(module, self.growth.is_some()).unwrap_or_default() {
            match point_of(module, &function) {
                Some(point) => points.push(point),
                None => self.warn(format!("`{}` in {} is not watched.", function.name, module.name())),
            }
        }
        if let Some(mapped) = &mut self.mapped {
            mapped.functions += points.len();
        }
        let attached = self.probe.attach(&points);
        attached.with_context(|| format!("cannot probe mmap in {}", module.path.display()))
    }

    /// Has the interpreter tell of the code objects that it frees. Where that is not possible, it is said.
    pub(super) fn probe_code_deaths(&mut self) {
        let Some((interpreter, ..)) = self.python.interpreter() else { return };
        let found = interpreter.code_death.as_ref().and_then(|death| point_of(&interpreter.module, death));
        let point = found.map(|point| PythonPoint { path: point.path, offset: point.offset, cookie: 0 });
        let watched = point.is_some_and(|at| self.probe.attach_python(PythonEvent::CodeDies, &[at]).is_ok());
        if !watched {
            self.warn(
                "The interpreter does not tell of code that it frees: Python code that comes to its place may be taken for \
                 it."
                    .into(),
            );
        }
    }

    /// Fails where an allocator that the user named has not been found.
    pub(super) fn require_custom_allocators(&mut self) -> Result<(), TargetError> {
        let pid = self.process.pid;
        self.custom.iter_mut().try_for_each(|custom| custom.require(pid))
    }

    fn attach(&mut self, mut allocator: Allocator, custom: bool) -> anyhow::Result<()> {
        let index = u8::try_from(self.allocators.len())
            .ok()
            .filter(|index| ![MAPPING_SITE, POOL_SITE, FAULT_SITE].contains(index))
            .context("the process has more than 253 allocators")?;
        self.sampled_code.add(&allocator);
        if let Some(callers) = self.callers.as_mut().filter(|_| !custom) {
            callers.hold_back(index, &mut allocator);
        }
        let points = self.points(&allocator, index, custom)?;
        self.probe.attach(&points).with_context(|| {
            format!("cannot probe {} in {}", allocator.name, allocator.module.path.display())
        })?;
        self.allocators.push(allocator.name);
        Ok(())
    }

    /// Where the probes of one allocator go.
    pub(super) fn points(
        &mut self,
        allocator: &Allocator,
        index: u8,
        custom: bool,
    ) -> anyhow::Result<Vec<ProbePoint>> {
        let module = &allocator.module;
        let path = module.attach_path().context("an allocator outside every file")?;
        let mut points = Vec::new();
        for (number, function) in allocator.functions.iter().enumerate() {
            match placement::place(module, function) {
                Ok(place) => {
                    if !place.emulated {
                        self.warn(format!(
                            "`{}` in {} offers no instruction that the kernel emulates: each call costs some ten times \
                             more than elsewhere, and the overhead shown is too low.",
                            function.name,
                            module.name()
                        ));
                    }
                    points.push(ProbePoint {
                        path: path.clone(),
                        offset: place.file_offset,
                        call: function.call,
                        allocator: index,
                        // It only tells functions apart that jump into one another; no allocator has so many.
                        function: u8::try_from(number).unwrap_or(u8::MAX),
                        custom,
                        position: if place.returns && !allocator.has_entry_inside(function) {
                            Position::CalledToReturn
                        } else {
                            Position::Called
                        },
                    });
                }
                Err(error) => {
                    self.warn(format!("`{}` in {} is not watched: {error}", function.name, module.name()));
                }
            }
        }
        Ok(points)
    }
}

/// Where the probe of a function goes that belongs to no allocator.
fn point_of(module: &Arc<Module>, function: &AllocatorFunction) -> Option<ProbePoint> {
    Some(ProbePoint {
        offset: placement::place(module, function).ok()?.file_offset,
        path: module.attach_path()?,
        call: function.call,
        allocator: 0,
        function: 0,
        custom: false,
        position: Position::Called,
    })
}
