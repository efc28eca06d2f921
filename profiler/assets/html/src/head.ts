// The top of the page: whose memory, the numbers in short, where to look first, and how far to trust it all.

import { h } from "./dom";
import type { Profile } from "./data";
import type { Store } from "./state";
import { blocks, bytes, count, counted, plusMinus, span } from "./units";

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
  const cards = [
    card(`Live ${when}`, bytes(live) + plusMinus(error?.[0], bytes), `in ${blocks(liveBlocks)}${plusMinus(error?.[1], count)}`),
    card(`Allocated since the ${profile.since}`, bytes(all) + plusMinus(error?.[2], bytes), `in ${blocks(allBlocks)}${plusMinus(error?.[3], count)}`),
  ];
  if (profile.peak !== null) cards.push(card("Most live at a time", bytes(profile.peak.space), `after ${span(profile.peak.after)}`));
  if (rss.length > 0) cards.push(card("Resident (RSS)", bytes(rss[rss.length - 1]), `${bytes(rss[0])} at the beginning`));
  cards.push(card("Sites", count(profile.sites.node.length), "stacks that allocated"));
  const cost = profile.overhead_percent;
  cards.push(card("Cost in the target", cost === null ? "unknown" : `${cost.toFixed(1)}%`, cost === null ? "could not be measured" : "of its CPU time"));
  return h("section.cards", { "aria-label": "In short" }, ...cards);
}

/** What grows most, in a sentence that leads to it. */
export function advice(profile: Profile, title: (site: number) => { name: string; by: string }, store: Store): HTMLElement | null {
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
    h("summary", {}, h("b", {}, "How far to trust this: "), title, h("span.quiet", {}, profile.sampled ? ", sampled" : ", every allocation counted")),
    h(
      "div.remarks",
      {},
      list("warnings", warnings.map((remark) => remark.text)),
      list("notes", [...notes, ...facts, `Probes were attached by way of ${profile.probes}.`]),
    ),
  );
}
