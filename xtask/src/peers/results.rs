//! What was measured so far, by tool, workload and length; in a file too, so that it can be measured in pieces.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// One tool with one workload of one length.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Cell {
    /// Seconds, one for each run.
    pub(super) times: Vec<f64>,
    /// Why the last run has none.
    pub(super) failed: Option<String>,
}

/// Tool, workload, and how many times it was shortened.
pub(super) type Key = (String, String, u64);

/// All of it.
#[derive(PartialEq, Debug, Default)]
pub(super) struct Results {
    pub(super) cells: BTreeMap<Key, Cell>,
    /// Of the stacks that each tool shows, the share that reaches `main`.
    pub(super) stacks: BTreeMap<String, f64>,
}

impl Results {
    /// What the file has; nothing where there is none yet.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let mut results = Self::default();
        if !path.exists() {
            return Ok(results);
        }
        let shown = path.display();
        let file: Value =
            serde_json::from_slice(&fs::read(path)?).with_context(|| format!("{shown} has no results"))?;
        for cell in file["cells"].as_array().into_iter().flatten() {
            let text = |name: &str| cell[name].as_str().map(str::to_owned);
            let (Some(tool), Some(workload)) = (text("tool"), text("workload")) else { continue };
            let shortened = cell["shortened"].as_u64().unwrap_or(1);
            let times = cell["times"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
            results.cells.insert((tool, workload, shortened), Cell { times, failed: text("failed") });
        }
        for (tool, share) in file["stacks"].as_object().into_iter().flatten() {
            results.stacks.extend(share.as_f64().map(|share| (tool.clone(), share)));
        }
        Ok(results)
    }

    /// Writes all of it.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        let cells: Vec<Value> = self
            .cells
            .iter()
            .map(|((tool, workload, shortened), Cell { times, failed })| {
                json!({ "tool": tool, "workload": workload, "shortened": shortened, "times": times, "failed": failed })
            })
            .collect();
        let text = serde_json::to_string_pretty(&json!({ "cells": cells, "stacks": self.stacks }))?;
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Takes in a run. One that succeeds makes up for one that failed.
    pub(super) fn add(&mut self, key: Key, outcome: Result<f64, String>) {
        let cell = self.cells.entry(key).or_default();
        match outcome {
            Ok(time) => {
                cell.times.push(time);
                cell.failed = None;
            }
            Err(failed) => cell.failed = Some(failed),
        }
    }

    /// The median, the least and the most of the times.
    pub(super) fn median(&self, key: &Key) -> Option<(f64, f64, f64)> {
        let mut times = self.cells.get(key)?.times.clone();
        times.sort_by(f64::total_cmp);
        Some((*times.get(times.len() / 2)?, *times.first()?, *times.last()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn pieces_are_put_together() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("results.json");
        let key = |tool: &str| (tool.to_owned(), "loop".to_owned(), 10);
        let mut first = Results::read(&file).unwrap();
        first.add(key("a"), Ok(3.0));
        first.add(key("b"), Err("timed out".into()));
        first.stacks.insert("a".into(), 0.5);
        first.write(&file).unwrap();
        let mut second = Results::read(&file).unwrap();
        assert_eq!(second, first);
        second.add(key("a"), Ok(1.0));
        second.add(key("a"), Ok(2.0));
        second.add(key("b"), Ok(7.0));
        second.write(&file).unwrap();
        let both = Results::read(&file).unwrap();
        assert_eq!(both.median(&key("a")), Some((2.0, 1.0, 3.0)));
        assert_eq!(both.cells[&key("b")], Cell { times: vec![7.0], failed: None });
        assert_eq!(both.median(&key("c")), None);
    }
}
