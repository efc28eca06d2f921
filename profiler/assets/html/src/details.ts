// One site in full: its stack, its memory over time, when its blocks were born, their sizes, threads and generations.

import uPlot from "uplot";

import { color, fill, h } from "./dom";
import { begins, type Parts, type Profile } from "./data";
import { IS_GUESSED, IS_INLINED, TINTS, type Stacks } from "./stacks";
import type { Store } from "./state";
import { STEPS } from "./timeline";
import { blocks, bytes, count, counted, growth, moment, percent, plusMinus, span } from "./units";

export class Details {
  readonly element = h("aside.details", { "aria-label": "Details of a site", tabindex: -1, hidden: true });
  private readonly begin: Record<"births" | "over_time" | "sizes" | "threads" | "generations", Uint32Array>;
  private plots: uPlot[] = [];

  constructor(
    private readonly profile: Profile,
    private readonly stacks: Stacks,
    private readonly store: Store,
    private readonly title: (site: number) => { name: string; by: string },
  ) {
    const { births, over_time, sizes, threads, generations } = profile.sites;
    this.begin = {
      births: begins(births.count),
      over_time: begins(over_time.count),
      sizes: begins(sizes.count),
      threads: begins(threads.count),
      generations: begins(generations.count),
    };
  }

  show(): void {
    this.plots.forEach((plot) => plot.destroy());
    this.plots = [];
    const { site } = this.store.state;
    this.element.hidden = site === null;
    document.documentElement.classList.toggle("with-details", site !== null);
    if (site === null) return;
    const { sites, trends } = this.profile;
    const close = () => this.store.set({ site: null });
    fill(
      this.element,
      h(
        "header.bar",
        {},
        h("span.quiet", {}, "Site"),
        h("button.icon", { onclick: close, "aria-label": "Close (Esc)", title: "Close (Esc)" }, "×"),
      ),
      h("h2", {}, this.title(site).name),
      this.profile.windowed === null && h("p.verdict", {}, h(`span.trend.trend-${sites.trend[site]}` as "span", {}, trends[sites.trend[site]]), ` ${this.reasons(site)}`),
      this.numbers(site),
      ...this.overTime(site),
      ...this.born(site),
      ...this.stack(site),
      ...this.sizes(site),
      ...this.held("threads", "Threads that allocated what lives", site, (key) => this.profile.names.texts[key]),
      ...this.held("generations", "Generations", site, (key) => this.generation(key)),
    );
    this.element.scrollTop = 0;
  }

  private reasons(site: number): string {
    const { sites, trends } = this.profile;
    return sites.verdict[site].slice(trends[sites.trend[site]].length).replace(/^: /, "");
  }

  private numbers(site: number): HTMLElement {
    const { sites, at } = this.profile;
    const { totals, errors } = sites;
    const live = { end: "live", peak: "live at the peak", exit: "live at exit" }[at];
    const { windowed } = this.profile;
    const all: [string, string][] = [
      [live, `${bytes(totals.inuse_space[site])}${plusMinus(errors.inuse_space[site], bytes)} in ${blocks(totals.inuse_objects[site])}${plusMinus(errors.inuse_objects[site], count)}`],
      ["allocated", `${bytes(totals.alloc_space[site])}${plusMinus(errors.alloc_space[site], bytes)} in ${blocks(totals.alloc_objects[site])}${plusMinus(errors.alloc_objects[site], count)}`],
      ["at the peak", `${bytes(sites.peak_space[site])} in ${blocks(sites.peak_objects[site])}`],
      ["growth", `${growth(sites.growth[site])} in the second half of its time`],
      ["temporary", `${blocks(sites.temporary_objects[site])} (${percent(sites.temporary_objects[site], totals.alloc_objects[site])})`],
      ["oldest", sites.oldest[site] === null ? "-" : span(sites.oldest[site] ?? 0)],
      ["allocator", this.profile.names.texts[sites.allocator[site]]],
    ];
    // In windows it is not known what lives, nor how that came to be.
    const unknown = ["at the peak", "growth", live];
    const known = all.filter(([name]) => windowed === null || !unknown.includes(name));
    const kept: [string, string][] =
      windowed === null
        ? []
        : [
            ["kept a second", `${bytes(sites.kept_rate[site])}/s${plusMinus(sites.kept_error[site] ?? undefined, (number) => `${bytes(number)}/s`)}`],
            ["kept", `${bytes(totals.inuse_space[site])} in ${blocks(totals.inuse_objects[site])} of ${counted(windowed.windows, "window", "windows")}: not seen freed`],
          ];
    const pairs = [...kept, ...known];
    return h("dl.numbers", {}, ...pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  }

  private overTime(site: number): HTMLElement[] {
    const { snapshots, sites } = this.profile;
    const [from, end] = [this.begin.over_time[site], this.begin.over_time[site + 1]];
    if (snapshots.after.length < 2 || from === end) return [];
    const level = new Array<number>(snapshots.after.length).fill(0);
    for (let part = from; part < end; part++) level.fill(sites.over_time.space[part], sites.over_time.key[part]);
    return this.chart("Live bytes over time", snapshots.after.map((time) => time / 1000), level, "--live");
  }

  private born(site: number): HTMLElement[] {
    const { births, sites, duration } = this.profile;
    const [from, end] = [this.begin.births[site], this.begin.births[site + 1]];
    if (births.span === 0 || from === end) return [];
    const last = Math.max(Math.ceil(duration / births.span), sites.births.key[end - 1] + 1);
    const space = new Array<number>(last + 1).fill(0);
    for (let part = from; part < end; part++) space[sites.births.key[part]] = sites.births.space[part];
    const title = `When its ${blocks(total(sites.births, from, end))} that live at the end were born (each column ${span(births.span)})`;
    return this.chart(title, space.map((_, key) => (key * births.span) / 1000), space, "--born", true);
  }

  private chart(title: string, times: number[], values: number[], tone: string, columns = false): HTMLElement[] {
    const place = h("div.chart");
    const [stroke, text, line] = [tone, "--quiet", "--line"].map(color);
    requestAnimationFrame(() => {
      if (!place.isConnected) return;
      const font = "10px system-ui, sans-serif";
      const axis = { stroke: text, font, grid: { stroke: line, width: 1 }, ticks: { show: false } };
      const options: uPlot.Options = {
        width: place.clientWidth,
        height: 110,
        padding: [6, 10, 0, 0],
        legend: { show: false },
        cursor: { show: false },
        scales: { x: { time: false }, y: { range: (_, __, most) => [0, Math.max(1, most) * 1.05] } },
        axes: [
          { ...axis, size: 22, space: 80, incrs: STEPS, values: (_, at) => at.map((time) => moment(time * 1000)) },
          { ...axis, size: 66, space: 26, incrs: Array.from({ length: 50 }, (_, power) => 2 ** power), values: (_, at) => at.map(bytes) },
        ],
        series: [
          {},
          {
            stroke,
            width: columns ? 0 : 2,
            points: { show: false },
            fill: `color-mix(in srgb, ${stroke} ${columns ? 60 : 14}%, transparent)`,
            paths: uPlot.paths.stepped?.({ align: 1 }),
          },
        ],
      };
      this.plots.push(new uPlot(options, [times, values], place));
    });
    return [h("h3", {}, title), place];
  }

  private stack(site: number): HTMLElement[] {
    const { frames, texts } = this.profile.names;
    const stack = this.stacks.whole(site);
    const lines: string[] = [];
    const list = stack.map((frame) => {
      const [file, module, line, flags] = [texts[frames.file[frame]], texts[frames.module[frame]], frames.line[frame], frames.flags[frame]];
      const place = file === "" ? "" : `${file}${line > 0 ? `:${line}` : ""}`;
      const name = texts[frames.name[frame]];
      lines.push([name, place, module].filter((part) => part !== "").join("  "));
      return h(
        "li",
        {},
        h(`span.dot.dot-${TINTS[frames.tint[frame]]}` as "span", { title: TINTS[frames.tint[frame]] }),
        h(
          "div",
          {},
          h("code", {}, name),
          (flags & IS_INLINED) !== 0 && h("span.tag", { title: "The compiler inlined this function into the next one" }, "inlined"),
          (flags & IS_GUESSED) !== 0 && h("span.tag", { title: "Found by following a frame pointer through code without unwind information" }, "guess"),
          place !== "" && h("div.where", {}, place),
          module !== "" && h("div.where.quiet", {}, module),
        ),
      );
    });
    const copy = h("button.small", {
      onclick: () => void navigator.clipboard?.writeText(lines.join("\n")).then(() => (copy.textContent = "Copied")),
    }, "Copy");
    return [h("h3", {}, `Stack at allocation, ${stack.length === 1 ? "1 frame" : `${stack.length} frames`}, the allocator's caller first`, copy), h("ol.stack", {}, ...list)];
  }

  private sizes(site: number): HTMLElement[] {
    const { sizes } = this.profile.sites;
    const [from, end] = [this.begin.sizes[site], this.begin.sizes[site + 1]];
    if (from === end) return [];
    const most = Math.max(...sizes.alloc_objects.slice(from, end), 1);
    const rows: HTMLElement[] = [];
    for (let at = from; at < end; at++) {
      const largest = sizes.largest[at];
      const range = largest === null ? `${bytes(sizes.smallest[at])} and more` : largest === sizes.smallest[at] ? bytes(largest) : `${bytes(sizes.smallest[at])} to ${bytes(largest)}`;
      rows.push(h("tr", {}, h("td", {}, range), h("td.number", {}, count(sizes.inuse_objects[at])), h("td.number", {}, count(sizes.alloc_objects[at])), h("td.meter", {}, meter(sizes.alloc_objects[at], sizes.inuse_objects[at], most))));
    }
    const head = h("tr", {}, ...["Size", "live at the end", "allocated", ""].map((text) => h("th", { scope: "col" }, text)));
    return [h("h3", {}, "Sizes of its blocks"), h("table", {}, h("thead", {}, head), h("tbody", {}, ...rows))];
  }

  private held(what: "threads" | "generations", title: string, site: number, name: (key: number) => string): HTMLElement[] {
    const parts = this.profile.sites[what];
    const [from, end] = [this.begin[what][site], this.begin[what][site + 1]];
    if (from === end) return [];
    const most = Math.max(...parts.space.slice(from, end), 1);
    const rows: HTMLElement[] = [];
    for (let at = from; at < end; at++) {
      const cells = [bytes(parts.space[at]), blocks(parts.objects?.[at] ?? 0)].map((text) => h("td.number", {}, text));
      rows.push(h("tr", {}, h("td", {}, name(parts.key[at])), ...cells, h("td.meter", {}, meter(parts.space[at], parts.space[at], most))));
    }
    return [h("h3", {}, title), h("table", {}, h("tbody", {}, ...rows))];
  }

  private generation(key: number): string {
    const mark = this.profile.marks[key];
    return mark?.name === null || mark === undefined ? "before the first mark" : `since mark ${mark.name} (after ${span(mark.after)})`;
  }
}

function total(parts: Parts, from: number, end: number): number {
  let objects = 0;
  for (let part = from; part < end; part++) objects += parts.objects?.[part] ?? 0;
  return objects;
}

/** A bar of what there was, and in it what lives. */
function meter(all: number, part: number, most: number): HTMLElement {
  const [outer, inner] = [h("span.outer"), h("span.inner")];
  outer.style.width = `${(100 * all) / most}%`;
  inner.style.width = `${all > 0 ? (100 * part) / all : 0}%`;
  outer.append(inner);
  return outer;
}
