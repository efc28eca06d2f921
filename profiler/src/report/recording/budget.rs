//! What a budget let be recorded, and windows. Their messages, and what they stand for.
#![expect(
    missing_docs,
    reason = "docs/hscope.proto documents each field; a second copy would only differ from it"
)]

use std::time::Duration;

use prost::{Enumeration, Message};

use super::{
    decode,
    encode::{self, nanoseconds},
    message::Held,
};
use crate::report::{
    budget::{self, BudgetReport},
    profile::{self, Mode},
};

#[derive(Clone, PartialEq, Message)]
pub struct Recorded {
    #[prost(double, optional, tag = "1")]
    pub budget_percent: Option<f64>,
    #[prost(uint64, optional, tag = "2")]
    pub sample_interval: Option<u64>,
    #[prost(message, repeated, tag = "3")]
    pub steps: Vec<Step>,
    #[prost(double, optional, tag = "4")]
    pub at_least_percent: Option<f64>,
    #[prost(double, optional, tag = "5")]
    pub processor_percent: Option<f64>,
    #[prost(uint64, optional, tag = "6")]
    pub advance_ns: Option<u64>,
    #[prost(message, optional, tag = "20")]
    pub only_caller: Option<OnlyCaller>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct OnlyCaller {
    #[prost(string, tag = "1")]
    pub asked: String,
    #[prost(string, tag = "2")]
    pub how: String,
    #[prost(bool, tag = "3")]
    pub by_calls: bool,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Step {
    #[prost(uint64, tag = "1")]
    pub after_ns: u64,
    #[prost(enumeration = "Sampling", tag = "2")]
    pub sampling: i32,
    #[prost(uint64, tag = "3")]
    pub sample_interval: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum Sampling {
    Every = 0,
    Samples = 1,
    Windows = 2,
    Told = 3,
}

#[derive(Clone, PartialEq, Message)]
pub struct Windowed {
    #[prost(uint64, tag = "1")]
    pub count: u64,
    #[prost(uint64, tag = "2")]
    pub observed_ns: u64,
    #[prost(double, tag = "3")]
    pub slowdown: f64,
    #[prost(message, optional, tag = "4")]
    pub kept: Option<Kept>,
    #[prost(uint64, tag = "5")]
    pub gone: u64,
    #[prost(message, repeated, tag = "6")]
    pub resident: Vec<ResidentAt>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct ResidentAt {
    #[prost(uint64, tag = "1")]
    pub after_ns: u64,
    #[prost(uint64, tag = "2")]
    pub space: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub struct Kept {
    #[prost(message, optional, tag = "1")]
    pub held: Option<Held>,
    #[prost(double, tag = "2")]
    pub rate: f64,
    #[prost(double, optional, tag = "3")]
    pub rate_error: Option<f64>,
}

impl Recorded {
    pub(super) fn of(mode: &Mode) -> Self {
        let step = |(after, recorded): &(Duration, budget::Recorded)| Step {
            after_ns: nanoseconds(*after),
            sampling: match recorded {
                budget::Recorded::Every => Sampling::Every,
                budget::Recorded::Sampled(_) => Sampling::Samples,
                budget::Recorded::Windows(_) => Sampling::Windows,
                budget::Recorded::Told => Sampling::Told,
            }
            .into(),
            sample_interval: recorded.interval().unwrap_or(0),
        };
        Self {
            budget_percent: mode.budget.percent,
            sample_interval: mode.sample_interval,
            steps: mode.budget.steps.iter().map(step).collect(),
            at_least_percent: mode.budget.at_least_percent,
            processor_percent: mode.budget.processor_percent,
            advance_ns: mode.budget.advance.map(nanoseconds),
            only_caller: mode
                .only_caller
                .clone()
                .map(|profile::OnlyCaller { asked, how, by_calls }| OnlyCaller { asked, how, by_calls }),
        }
    }

    pub(super) fn only_caller(&self) -> Option<profile::OnlyCaller> {
        let OnlyCaller { asked, how, by_calls } = self.only_caller.clone()?;
        Some(profile::OnlyCaller { asked, how, by_calls })
    }

    pub(super) fn decode(&self) -> BudgetReport {
        let step = |step: &Step| {
            let recorded = match step.sampling() {
                Sampling::Every => budget::Recorded::Every,
                Sampling::Samples => budget::Recorded::Sampled(step.sample_interval),
                Sampling::Windows => budget::Recorded::Windows(step.sample_interval),
                Sampling::Told => budget::Recorded::Told,
            };
            (Duration::from_nanos(step.after_ns), recorded)
        };
        BudgetReport {
            percent: self.budget_percent,
            at_least_percent: self.at_least_percent,
            processor_percent: self.processor_percent,
            advance: self.advance_ns.map(Duration::from_nanos),
            steps: self.steps.iter().map(step).collect(),
        }
    }
}

impl Windowed {
    pub(super) fn of(windowed: &budget::Windowed) -> Self {
        let budget::Windowed { count, observed, slowdown, kept, gone, resident } = windowed;
        let at =
            |(after, space): &(Duration, u64)| ResidentAt { after_ns: nanoseconds(*after), space: *space };
        Self {
            count: *count,
            observed_ns: nanoseconds(*observed),
            slowdown: *slowdown,
            kept: Some(Kept::of(kept)),
            gone: *gone,
            resident: resident.iter().map(at).collect(),
        }
    }

    pub(super) fn decode(&self) -> budget::Windowed {
        let at = |at: &ResidentAt| (Duration::from_nanos(at.after_ns), at.space);
        budget::Windowed {
            count: self.count,
            observed: Duration::from_nanos(self.observed_ns),
            slowdown: self.slowdown,
            kept: self.kept.unwrap_or_default().decode(),
            gone: self.gone,
            resident: self.resident.iter().map(at).collect(),
        }
    }
}

impl Kept {
    pub(super) fn of(kept: &budget::Kept) -> Self {
        Self { held: Some(encode::held(kept.held)), rate: kept.rate, rate_error: kept.rate_error }
    }

    pub(super) fn decode(&self) -> budget::Kept {
        budget::Kept { held: decode::held(self.held), rate: self.rate, rate_error: self.rate_error }
    }
}
