//! Whether the recording shows what the service did: the two largest sites of heapscope's JSON (docs/json.md).

use std::fmt;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The function that allocates what is forgotten.
pub(super) const LEAK: &str = "session_attach_profile";
/// The function that allocates what is cached.
const CACHE: &str = "image_render";
/// How many frames of a stack fit a line.
const SHOWN_FRAMES: usize = 4;

/// The sites that matter.
#[derive(Debug)]
pub(super) struct Verdict {
    leak: Site,
    cache: Site,
    /// Live bytes of all other sites.
    other_bytes: u64,
}

#[derive(Debug)]
struct Site {
    bytes: u64,
    blocks: u64,
    /// Leaf first.
    functions: Vec<String>,
}

impl Verdict {
    /// Reads the JSON.
    ///
    /// # Errors
    /// Where the largest site is not the leak, or the next one not the cache, with what is there instead.
    pub(super) fn of(json: &[u8]) -> Result<Self> {
        let document: Value = serde_json::from_slice(json).context("reading the recording's JSON")?;
        let sites = document["sites"].as_array().context("the JSON has no `sites`")?;
        let mut sites = sites.iter().map(Site::of).collect::<Result<Vec<_>>>()?.into_iter();
        let leak = Site::require(sites.next(), "largest", LEAK)?;
        let cache = Site::require(sites.next(), "second largest", CACHE)?;
        Ok(Self { leak, cache, other_bytes: sites.map(|site| site.bytes).sum() })
    }

    /// Holds the leak against the service's own count, which began before the recording and ended after it.
    pub(super) fn check(&self, forgotten_bytes: u64) -> Result<()> {
        if self.leak.bytes > forgotten_bytes {
            bail!(
                "the recording has {} bytes in {LEAK}, but the service forgot only {forgotten_bytes}",
                self.leak.bytes
            );
        }
        Ok(())
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "What heapscope saw: memory allocated since it attached and not freed.")?;
        writeln!(f, "  the leak   {}", self.leak)?;
        writeln!(f, "  the cache  {}", self.cache)?;
        write!(f, "  all else   {:>10} bytes", self.other_bytes)
    }
}

impl Site {
    fn of(site: &Value) -> Result<Self> {
        let number =
            |name: &str| site[name].as_u64().with_context(|| format!("a site has no `{name}`: {site}"));
        let stack = site["stack"].as_array().with_context(|| format!("a site has no `stack`: {site}"))?;
        let function = |frame: &Value| frame["function"].as_str().unwrap_or("?").to_owned();
        Ok(Self {
            bytes: number("inuse_space")?,
            blocks: number("inuse_objects")?,
            functions: stack.iter().map(function).collect(),
        })
    }

    fn require(site: Option<Self>, rank: &str, function: &str) -> Result<Self> {
        let site =
            site.with_context(|| format!("the recording has no {rank} site; {function} was expected"))?;
        // The compiler may have made a clone of it, such as `image_render.constprop.0`.
        if site.functions.iter().any(|name| name == function || name.starts_with(&format!("{function}."))) {
            return Ok(site);
        }
        bail!("the {rank} site is not in {function}, but: {site}")
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stack = self.functions[..self.functions.len().min(SHOWN_FRAMES)].join(" < ");
        write!(f, "{:>10} bytes in {:>4} blocks: {stack}", self.bytes, self.blocks)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

    use serde_json::json;

    use super::Verdict;

    fn verdict(first: &[&str], second: &[&str]) -> Result<Verdict, String> {
        let site = |bytes: u64, functions: &[&str]| {
            let stack: Vec<_> = functions.iter().map(|name| json!({ "function": name })).collect();
            json!({ "inuse_space": bytes, "inuse_objects": 3, "stack": stack })
        };
        let sites = [site(900, first), site(80, second), site(7, &["main"])];
        Verdict::of(&serde_json::to_vec(&json!({ "sites": sites })).unwrap()).map_err(|e| format!("{e:#}"))
    }

    #[test]
    fn leak_then_cache() {
        let good = verdict(&["session_attach_profile", "session_open"], &["image_render.part.0"]).unwrap();
        assert_eq!((good.leak.bytes, good.cache.bytes, good.other_bytes), (900, 80, 7));
        assert!(good.check(900).is_ok());
        assert!(good.check(899).is_err());
    }

    #[test]
    fn anything_else_fails_and_says_what_is_there() {
        let swapped = verdict(&["image_render"], &["session_attach_profile"]).unwrap_err();
        assert!(swapped.contains("the largest site is not in session_attach_profile, but:"), "{swapped}");
        assert!(swapped.contains("image_render"), "{swapped}");
        let no_cache = verdict(&["session_attach_profile"], &["main"]).unwrap_err();
        assert!(no_cache.contains("second largest"), "{no_cache}");
        assert!(Verdict::of(b"{\"sites\": []}").is_err());
        assert!(Verdict::of(b"{}").is_err());
        assert!(Verdict::of(b"").is_err());
    }
}
