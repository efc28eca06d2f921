//! Where the columns meet: probes, ledger, names and reports become commands.
//!
//! [`attach`] follows one target from the first look to the last report; [`run`] does the same with a program that it
//! starts itself. What they share is in `watch`: the loop, and the end.

mod account;
mod advance;
mod attach;
mod blocks;
mod budget;
mod children;
mod code;
mod dangers;
mod details;
mod doctor;
mod governor;
mod growth;
mod history;
mod listener;
mod lookout;
mod mapped;
mod marks;
mod named_allocator;
mod naming;
mod observation;
mod only_caller;
pub mod options;
mod output;
mod overhead;
mod placing;
mod pools;
mod python;
mod quality;
mod recorder;
pub mod report;
mod run;
mod run_time;
mod sampled_code;
mod signals;
mod status;
mod taking_up;
mod told;
mod top;
mod trap_cost;
mod watch;
mod windowed;
mod windows;

pub use attach::attach;
pub use doctor::doctor;
pub use marks::mark;
pub use report::{diff, report};
pub use run::run;
pub use top::top;
