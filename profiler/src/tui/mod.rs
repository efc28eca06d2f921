//! The live view of `heapscope top`, without the terminal, the probes or a clock: [`model`] is what it is fed, [`state`]
//! what is shown and what keys do to it, [`view`] draws that into a frame. Nothing is read or written while drawing.
//! [`terminal`] is the one place that touches the terminal.

pub mod filter;
mod input;
mod keys;
mod layout;
pub mod model;
pub mod state;
pub mod terminal;
pub mod theme;
pub mod view;

#[cfg(test)]
mod tests;
