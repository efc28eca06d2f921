// The top of the page: whose memory, the numbers in short, where to look first, and how far to trust it all.

import { h } from "./dom";
import type { Profile } from "./data";
import type { Store } from "./state";
import { blocks, bytes, count, counted, percent, plusMinus, span } from "./units";

/** The trend of report/verdict.rs that comes first. */
const GROWS_STEADILY = 0;
const GROWS = 1;

export function head(profile: Profile, buttons: HTMLElement[]): HTMLElement {
  const started = profile.started?.replace("T", " ").replace(/\.\d+Z$/, " UTC");
  return h(
    "header.top",
    {},
    h(
      "div",
      {},
      h("p.brand", {}, "heapscope", h("span.quiet", {}, ` ${profile.heapscope}`)),
      h("h1", { title: profile.exe }, profile.command || profile.exe || `process ${profile.pid}`),
      h("p.quiet", {}, `pid ${profile.pid}, ${profile.conditions}${started === undefined ? "" : `, from ${started}`}`),
    ),
    h("div.buttons", {}, ...buttons),
  );
}

export function numbers(profile: Profile): HTMLElement {
  const [live, liveBlocks, all, allBlocks] = profile.totals;
  const error = profile.errors;
  const when = { end: "at the end", peak: "at the peak", exit: "at exit" }[profile.at];
  const card = (label: string, value: string, below: string) => h("div.card", {}, h("span", {}, label), h("b", {}, value), h("span.quiet", {}, below));
  const rss = profile.snapshots.rss.filter((size): size is number => size !== null);
  const { windowed } = profile;
  const allocated = card(`Allocated since the ${profile.since}`, bytes(all) + plusMinus(error?.[2], bytes), `in ${blocks(allBlocks)}${plusMinus(error?.[3], count)}`);
  const cards = windowed === null ? [card(`Live ${when}`, bytes(live) + plusMinus(error?.[0], bytes), `in ${blocks(liveBlocks)}${plusMinus(error?.[1], count)}`), allocated] : kept(windowed, card, allocated);
  if (profile.peak !== null) cards.push(card("Most live at a time", bytes(profile.peak.space), `after ${span(profile.peak.after)}`));
  if (rss.length > 0) cards.push(card("Resident (RSS)", bytes(rss[rss.length - 1]), `${bytes(rss[0])} at the beginning`));
  cards.push(card("Sites", count(profile.sites.node.length), "stacks that allocated"));
  const cost = profile.overhead_percent;
  cards.push(card("Cost in the target", cost === null ? "unknown" : cost >= 99.5 ? "nearly all" : `${cost.toFixed(1)}%`, cost === null ? "could not be measured" : "of its CPU time"));
  return h("section.cards", { "aria-label": "In short" }, ...cards);
}

type Card = (label: string, value: string, below: string) => HTMLElement;

/** What stands in place of live memory where calls were seen in windows only. */
function kept(windowed: NonNullable<Profile["windowed"]>, card: Card, allocated: HTMLElement): HTMLElement[] {
  const { rate, rate_error, lower_bounds, windows, observed, space, objects } = windowed;
  const rates = `${lower_bounds ? "≥ " : ""}${bytes(rate)}/s`;
  const error = rate_error === null ? "error unknown: one window" : `± ${bytes(rate_error)}/s`;
  return [
    card("Kept a second", rates, `${error}, allocated and not seen freed`),
    card("Seen of it", bytes(space), `in ${blocks(objects)}, in ${counted(windows, "window", "windows")} of ${span(observed)} together`),
    allocated,
  ];
}

/** Who keeps most, where that is known and not what lives. */
function keeper({ sites, windowed }: Profile, title: (site: number) => { name: string; by: string }, store: Store): HTMLElement | null {
  if (windowed === null || windowed.space === 0) return null;
  let site = 0;
  sites.kept_rate.forEach((rate, at) => (site = rate > sites.kept_rate[site] ? at : site));
  const error = sites.kept_error[site];
  const share = percent(sites.totals.inuse_space[site], windowed.space);
  return h(
    "section.advice",
    { "aria-label": "Where to look first" },
    h("button.look", { onclick: () => store.set({ site }) }, h("b", {}, title(site).name)),
    h("span", {}, ` keeps ${bytes(sites.kept_rate[site])}/s${plusMinus(error ?? undefined, (number) => `${bytes(number)}/s`)}, ${share} of all that is kept.`),
    h("span", {}, windowed.resident === null ? "" : ` The process's ${windowed.resident}: what is kept is a leak only as far as that grows.`),
  );
}

/** What grows most, in a sentence that leads to it. */
export function advice(profile: Profile, title: (site: number) => { name: string; by: string }, store: Store): HTMLElement | null {
  if (profile.windowed !== null) return keeper(profile, title, store);
  const { sites } = profile;
  const of = (trend: number) => {
    let best: number | null = null;
    for (let site = 0; site < sites.trend.length; site++) {
      if (sites.trend[site] === trend && (best === null || sites.growth[site] > sites.growth[best])) best = site;
    }
    return best;
  };
  const site = of(GROWS_STEADILY) ?? of(GROWS);
  if (site === null) return null;
  const others = sites.trend.filter((trend) => trend === sites.trend[site]).length - 1;
  const more = others > 0 ? ` ${counted(others, "other site does", "other sites do")} too.` : "";
  const open = () => store.set({ site });
  return h(
    "section.advice",
    { "aria-label": "Where to look first" },
    h("button.look", { onclick: open }, h("b", {}, title(site).name)),
    h("span", {}, ` ${sites.verdict[site]}.${more}`),
  );
}

/** How allocations were counted. */
const COUNTED: Record<Profile["sampling"], string> = {
  exact: "every allocation counted",
  sampled: "sampled",
  windows: "seen in windows: frees between them are not seen",
  usdt: "estimates by the program itself, error unknown",
};

/** Warnings and notes, all of them. */
export function quality(profile: Profile): HTMLElement {
  const warnings = profile.remarks.filter((remark) => remark.warning);
  const notes = profile.remarks.filter((remark) => !remark.warning).map((remark) => remark.text);
  const facts = [...profile.facts, ...profile.mapped].map((fact) => fact[0].toUpperCase() + fact.slice(1) + ".");
  const title = warnings.length === 0 ? "No losses, no warnings" : counted(warnings.length, "warning", "warnings");
  const list = (kind: string, texts: string[]) => h(`ul.${kind}` as "ul", {}, ...texts.map((text) => h("li", {}, text)));
  return h(
    "details.quality",
    { open: warnings.length > 0, class: warnings.length > 0 ? "quality warned" : "quality" },
    h("summary", {}, h("b", {}, "How far to trust this: "), title, h("span.quiet", {}, `, ${COUNTED[profile.windowed === null ? profile.sampling : "windows"]}`)),
    h(
      "div.remarks",
      {},
      list("warnings", warnings.map((remark) => remark.text)),
      list("notes", [...notes, ...facts, `Probes were attached by way of ${profile.probes}.`]),
    ),
  );
}
