// Reads the profile, puts the page together, and brings every part up to date when something was chosen.

import "uplot/dist/uPlot.min.css";
import { Controls } from "./controls";
import { load, type Profile } from "./data";
import { Details } from "./details";
import { fill, h } from "./dom";
import { Graph } from "./graph";
import { advice, head, numbers, quality } from "./head";
import { help } from "./help";
import { listen } from "./keys";
import { metrics, Numbers, sum } from "./metric";
import { Stacks } from "./stacks";
import { Store, type State } from "./state";
import { Table } from "./table";
import { ThemeSwitch } from "./theme";
import { Timeline } from "./timeline";
import { blocks, bytes, count, counted, percent, span } from "./units";
// Behind the libraries' own sheets, over which it has the last word.
import "./page.css";

function matcher(texts: string[], term: string): (text: number) => boolean {
  const wanted = term.toLowerCase();
  const known = new Map<number, boolean>();
  return (text) => {
    if (wanted === "") return false;
    let found = known.get(text);
    if (found === undefined) known.set(text, (found = texts[text].toLowerCase().includes(wanted)));
    return found;
  };
}

function start(profile: Profile): void {
  const all: State = {
    metric: "live_space",
    range: null,
    fromLeaf: false,
    upright: false,
    hidden: { allocator: true, interpreter: true, start: true },
    least: 0.0005,
    search: "",
    zoom: [],
    filter: "",
    trend: -1,
    site: null,
  };
  const store = new Store(all);
  const { state } = store;
  const { texts, frames } = profile.names;
  const stacks = new Stacks(profile);
  const figures = new Numbers(profile);
  const kinds = metrics(profile);

  const controls = new Controls(profile, store);
  const graph = new Graph(store, stacks.tintOfName);
  const table = new Table(profile, stacks, store);
  const details = new Details(profile, stacks, store, (site) => table.title(site));
  const timeline = new Timeline(profile, figures.spans, store);
  const theme = new ThemeSwitch(() => {
    timeline.draw();
    details.show();
  });
  const helped = help();
  const crumbs = h("nav.crumbs", { "aria-label": "Zoom" });
  const range = h("div.range", { "aria-live": "polite" });

  const page = document.getElementById("page") as HTMLElement;
  fill(
    page,
    head(profile, [theme.button, h("button", { onclick: () => helped.showModal(), title: "Keys and help (?)" }, "? help")]),
    advice(profile, (site) => table.title(site), store),
    numbers(profile),
    quality(profile),
    h("section.panel", { "aria-label": "Over time" }, timeline.element, range),
    h("section.panel", { "aria-label": "Graph" }, controls.graphBar, crumbs, graph.element, controls.legend, graph.said),
    h("section.panel", { "aria-label": "Sites" }, controls.tableBar, table.element),
    details.element,
    helped,
  );
  const { windowed } = profile;
  const short = windowed === null ? `${bytes(profile.totals[0])} live` : `${bytes(windowed.rate)}/s kept`;
  document.title = `${short}, ${profile.command} (pid ${profile.pid}): heapscope`;
  document.getElementById("loading")?.remove();
  page.hidden = false;

  let sorted = stacks.sorted(state.fromLeaf, state.hidden);
  let live = figures.live(state.range);

  const showRange = () => {
    if (state.range === null) {
      const marks = profile.marks.filter((mark) => mark.name !== null);
      const since = marks.slice(-4).map((mark) => h("button.small", { onclick: () => timeline.choose(mark.after / 1000, profile.duration / 1000) }, `born since ${mark.name}`));
      fill(range, ...since);
      return;
    }
    const [first, last] = state.range;
    const until = Math.min((last + 1) * profile.births.span, profile.duration);
    const metric = kinds.find((kind) => kind.key === state.metric);
    fill(
      range,
      h("b", {}, `Born ${span(first * profile.births.span)} to ${span(until)}`),
      ` after the ${profile.since} and still live at the end: ${bytes(sum(live.space))} in ${blocks(sum(live.objects))}. `,
      metric?.live === false && h("em", {}, `The graph shows ${metric.label.toLowerCase()}, of the whole time. `),
      h("button.small", { onclick: () => store.set({ range: null }) }, "Whole time"),
    );
  };

  const update = (changed: Set<keyof State>, first = false) => {
    const has = (...keys: (keyof State)[]) => first || keys.some((key) => changed.has(key));
    if (has("hidden", "fromLeaf")) sorted = stacks.sorted(state.fromLeaf, state.hidden);
    if (has("range")) live = figures.live(state.range);
    if (has("range")) timeline.moved();
    if (has("range", "metric")) showRange();
    const metric = kinds.find((kind) => kind.key === state.metric) ?? kinds[0];
    const values = figures.of(metric.key, live);
    const total = sum(values);
    if (has("hidden", "fromLeaf", "range", "metric", "zoom", "search", "upright", "least", "filter", "trend")) {
      const matches = matcher(texts, state.search);
      const drawn = sorted.draw(values, live.space, live.objects, state.zoom, state.least);
      if (has("hidden", "fromLeaf", "range", "metric", "zoom", "search", "upright", "least")) {
        graph.show(drawn, metric, total, state.upright, matches);
        const matched = state.search === "" ? 0 : sorted.matched(values, matches);
        fill(controls.matched, state.search !== "" && `${percent(matched, total)} matched: ${metric.unit(matched)} of ${metric.unit(total)}`);
        const steps = drawn.zoom.map((name, depth) => h("button.crumb", { onclick: () => store.set({ zoom: drawn.zoom.slice(0, depth + 1) }) }, texts[name]));
        const left = drawn.least > state.least ? `frames narrower than ${(drawn.least * 100).toFixed(2)}% are left out; zoom in to see them` : "";
        fill(crumbs, h("button.crumb", { onclick: () => store.set({ zoom: [] }) }, "all"), ...steps.slice(-12), h("span.quiet", {}, left));
        crumbs.hidden = steps.length === 0 && left === "";
      }
      if (has("hidden", "fromLeaf", "range", "zoom", "filter", "trend")) listSites(drawn.sites, drawn.zoom.length > 0);
    }
    if (has("site")) {
      details.show();
      table.selected();
    }
  };

  const listSites = (sites: Uint32Array, zoomed: boolean) => {
    const matches = matcher(texts, state.filter);
    const inStack = state.filter === "" ? null : stacks.sitesWith((frame) => matches(frames.name[frame]) || matches(frames.file[frame]) || matches(frames.module[frame]));
    const ranged = state.range !== null;
    const passes = (site: number) =>
      (inStack === null || inStack[site] === 1 || matches(profile.sites.allocator[site])) &&
      (state.trend < 0 || profile.sites.trend[site] === state.trend) &&
      (!ranged || live.objects[site] > 0);
    const list = Array.from(sites).filter(passes);
    const held = list.reduce((space, site) => space + live.space[site], 0);
    const why = [zoomed && "in the zoomed frame", ranged && "with blocks born in the range"].filter(Boolean).join(", ");
    fill(controls.shown, `${count(list.length)} of ${counted(profile.sites.node.length, "site", "sites")}${why === "" ? "" : ` (${why})`}, ${bytes(held)} ${windowed === null ? "live" : "kept"}`);
    table.show(list, live, sum(live.space));
  };

  store.listen((changed) => update(changed));
  listen({ store, controls, graph, table, timeline, theme, help: helped });
  timeline.draw();
  timeline.start();
  update(new Set(), true);
}

load()
  .then(start)
  .catch((error: unknown) => {
    const place = document.getElementById("loading") ?? document.body.appendChild(h("p.stop"));
    place.textContent = error instanceof Error ? error.message : String(error);
    place.classList.add("failed");
    throw error;
  });
