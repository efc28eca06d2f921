// The switches above the graph and the table.

import { fill, h } from "./dom";
import type { Profile } from "./data";
import { metrics } from "./metric";
import { TINTS } from "./stacks";
import type { Hidden, MetricKey, Store } from "./state";

const KINDS: Record<(typeof TINTS)[number], string> = {
  program: "program (C, C++, Rust …)",
  python: "Python",
  library: "library",
  runtime: "C library, start",
  allocator: "allocator",
  jit: "JIT code",
  interpreter: "interpreter",
  remark: "unknown",
};

/** Share of the width below which a frame is left out. */
const LEAST: [number, string][] = [
  [0.0005, "0.05%"],
  [0.002, "0.2%"],
  [0.01, "1%"],
  [0.05, "5%"],
];

export class Controls {
  readonly search = h("input", { type: "search", placeholder: "Search functions  (/)", "aria-label": "Search functions", spellcheck: "false" });
  readonly filter = h("input", { type: "search", placeholder: "Filter by function, file, module  (f)", "aria-label": "Filter sites", spellcheck: "false" });
  readonly matched = h("span.matched", { "aria-live": "polite" });
  readonly graphBar: HTMLElement;
  readonly tableBar: HTMLElement;
  readonly legend: HTMLElement;
  readonly shown = h("span.quiet", { "aria-live": "polite" });
  private readonly refreshers: (() => void)[] = [];

  constructor(
    private readonly profile: Profile,
    private readonly store: Store,
  ) {
    this.search.addEventListener("input", () => this.store.set({ search: this.search.value }));
    this.filter.addEventListener("input", () => this.store.set({ filter: this.filter.value }));
    const words: [keyof Hidden, string, string][] = [
      ["allocator", "allocator", "The allocator's own functions, above the one that called it"],
      ["interpreter", "interpreter", "Python's own functions between those of the program"],
      ["start", "start", "How the process and its threads were started"],
    ];
    this.graphBar = h(
      "div.controls",
      {},
      this.choice("Width", metrics(profile).map(({ key, label }) => [key, label]), () => this.store.state.metric, (metric) => this.store.set({ metric: metric as MetricKey })),
      this.segments("Direction", [["", "From the root"], ["leaf", "From the allocation"]], () => (this.store.state.fromLeaf ? "leaf" : ""), (value) => this.store.set({ fromLeaf: value === "leaf", zoom: [] })),
      this.segments("Shape", [["", "Icicle"], ["up", "Flames"]], () => (this.store.state.upright ? "up" : ""), (value) => this.store.set({ upright: value === "up" })),
      h("fieldset.hide", {}, h("legend", {}, "Hide"), ...words.map(([key, label, title]) => this.check(key, label, title))),
      this.choice("Narrower than", LEAST.map(([least, label]) => [String(least), label]), () => String(this.store.state.least), (least) => this.store.set({ least: Number(least) })),
      h("div.search", {}, this.search, this.matched),
    );
    this.tableBar = h("div.controls", {}, h("h2", {}, "Sites"), this.shown, h("span.gap"), this.trendChoice(), this.filter);
    const used = new Set(profile.names.frames.tint);
    this.legend = h("ul.kinds", { "aria-label": "Colours" }, ...TINTS.filter((_, tint) => used.has(tint)).map((tint) => h("li", {}, h(`span.dot.dot-${tint}` as "span"), KINDS[tint])));
    store.listen(() => this.refresh());
    this.refresh();
  }

  /** Goes to the next metric, or the one before. */
  turnMetric(step: number): void {
    const keys = metrics(this.profile).map((metric) => metric.key);
    this.store.set({ metric: keys[(keys.indexOf(this.store.state.metric) + step + keys.length) % keys.length] });
  }

  /** Hides everything that can be hidden, or nothing. */
  toggleHidden(): void {
    const any = Object.values(this.store.state.hidden).some(Boolean);
    this.store.set({ hidden: { allocator: !any, interpreter: !any, start: !any } });
  }

  private refresh(): void {
    this.refreshers.forEach((refresh) => refresh());
    const { search, filter } = this.store.state;
    if (this.search.value !== search) this.search.value = search;
    if (this.filter.value !== filter) this.filter.value = filter;
  }

  private choice(label: string, options: [string, string][], value: () => string, choose: (value: string) => void): HTMLElement {
    const select = h("select", {}, ...options.map(([key, text]) => h("option", { value: key }, text)));
    select.addEventListener("change", () => choose(select.value));
    this.refreshers.push(() => (select.value = value()));
    return h("label.choice", {}, h("span", {}, label), select);
  }

  private segments(label: string, options: [string, string][], value: () => string, choose: (value: string) => void): HTMLElement {
    const group = h("div.segments", { role: "group", "aria-label": label });
    this.refreshers.push(() => {
      group.querySelectorAll("button").forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.value === value())));
    });
    fill(group, ...options.map(([key, text]) => h("button", { "data-value": key, onclick: () => choose(key) }, text)));
    return group;
  }

  private check(key: keyof Hidden, label: string, title: string): HTMLElement {
    const box = h("input", { type: "checkbox" });
    box.addEventListener("change", () => this.store.set({ hidden: { ...this.store.state.hidden, [key]: box.checked } }));
    this.refreshers.push(() => (box.checked = this.store.state.hidden[key]));
    return h("label", { title }, box, label);
  }

  private trendChoice(): HTMLElement {
    const { trends, sites } = this.profile;
    const options: [string, string][] = [["-1", "Any verdict"]];
    if (this.profile.windowed !== null) return h("span");
    trends.forEach((label, trend) => {
      const number = sites.trend.filter((of) => of === trend).length;
      if (number > 0) options.push([String(trend), `${label} (${number})`]);
    });
    return this.choice("Verdict", options, () => String(this.store.state.trend), (trend) => this.store.set({ trend: Number(trend) }));
  }
}
