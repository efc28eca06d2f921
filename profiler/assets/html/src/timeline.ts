// Live bytes and resident memory over time, with two handles: what was born between them is what the page is about.

import uPlot from "uplot";

import { color, fill, h } from "./dom";
import type { Profile } from "./data";
import type { Store } from "./state";
import { blocks, bytes, moment, span } from "./units";

const HEIGHT = 190;
/** Seconds between the labels of the time axis. */
export const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 604800, 2592000];

export class Timeline {
  readonly element = h("div.timeline");
  private readonly place = h("div.plot");
  private readonly legend = h("div.legend");
  private plot: uPlot | null = null;
  private readonly handles: [HTMLElement, HTMLElement];
  private readonly veils = [h("div.veil"), h("div.veil")];
  private readonly notes = h("div.notes");

  constructor(
    private readonly profile: Profile,
    private readonly spans: number,
    private readonly store: Store,
  ) {
    this.handles = [this.handle(0), this.handle(1)];
    this.element.append(this.legend, this.place);
    this.element.append(h("p.quiet", {}, this.spans > 0 ? "Drag across the chart, or move the handles, to see only what was born in that time and still lives." : this.profile.windowed === null ? "When blocks were born is not in this profile." : "Resident memory of the process. Calls were seen in windows only, so that live memory over time is not known."));
    new ResizeObserver(() => this.resize()).observe(this.place);
  }

  /** Draws it, in the theme's colours as they are now. */
  draw(): void {
    this.plot?.destroy();
    const width = this.place.clientWidth;
    if (width === 0) return;
    this.plot = new uPlot(this.options(width), this.data(), this.place);
    const over = this.plot.over;
    over.append(...this.veils, this.notes, ...(this.spans > 1 ? this.handles : []));
  }

  private arrange(): void {
    queueMicrotask(() => {
      this.annotate();
      this.moved();
    });
  }

  /** Puts handles and veils where the range is. */
  moved(): void {
    const { plot } = this;
    if (plot === null) return;
    const [first, last] = this.store.state.range ?? [0, this.spans - 1];
    const length = this.spanLength();
    const at = (time: number) => Math.min(plot.over.clientWidth, Math.max(0, plot.valToPos(time, "x")));
    const [left, right] = [at(first * length), at(Math.min((last + 1) * length, this.end()))];
    const width = plot.over.clientWidth;
    this.handles[0].style.left = `${left}px`;
    this.handles[1].style.left = `${right}px`;
    this.veils[0].style.left = "0";
    this.veils[0].style.width = `${left}px`;
    this.veils[1].style.left = `${right}px`;
    this.veils[1].style.width = `${Math.max(0, width - right)}px`;
    [first, last + 1].forEach((value, which) => {
      const words = span(Math.min(value * length, this.end()) * 1000);
      this.handles[which].setAttribute("aria-valuenow", String(value));
      this.handles[which].setAttribute("aria-valuemax", String(this.spans));
      this.handles[which].setAttribute("aria-valuetext", words);
      this.handles[which].dataset.time = words;
    });
    this.element.classList.toggle("ranged", this.store.state.range !== null);
  }

  /** Moves one end of the range by spans. */
  step(which: 0 | 1, by: number): void {
    const [first, last] = this.store.state.range ?? [0, this.spans - 1];
    if (which === 0) this.set(first + by, last);
    else this.set(first, last + by);
  }

  /** Chooses what was born from one time to another, in seconds. */
  choose(from: number, to: number): void {
    const length = this.spanLength();
    this.set(Math.floor(from / length), Math.max(Math.floor(from / length), Math.ceil(to / length) - 1));
  }

  private set(first: number, last: number): void {
    const within = (value: number) => Math.min(this.spans - 1, Math.max(0, value));
    const range: [number, number] = [within(Math.min(first, last)), within(Math.max(first, last))];
    const whole = range[0] === 0 && range[1] === this.spans - 1;
    this.store.set({ range: whole ? null : range });
  }

  private handle(which: 0 | 1): HTMLElement {
    const handle = h("div.handle", {
      role: "slider",
      tabindex: 0,
      "aria-label": which === 0 ? "Born after" : "Born before",
      "aria-valuemin": 0,
    });
    handle.append(h("span.grip"));
    handle.addEventListener("pointerdown", (event) => {
      handle.setPointerCapture(event.pointerId);
      event.preventDefault();
      event.stopPropagation();
      handle.focus();
    });
    handle.addEventListener("mousedown", (event) => event.stopPropagation());
    handle.addEventListener("pointermove", (event) => {
      if (!handle.hasPointerCapture(event.pointerId) || this.plot === null) return;
      const time = this.plot.posToVal(event.clientX - this.plot.over.getBoundingClientRect().left, "x");
      const [first, last] = this.store.state.range ?? [0, this.spans - 1];
      const at = Math.round(time / this.spanLength());
      if (which === 0) this.set(Math.min(at, last), last);
      else this.set(first, Math.max(at - 1, first));
    });
    handle.addEventListener("keydown", (event) => {
      const steps: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, PageDown: -10, PageUp: 10, Home: -this.spans, End: this.spans };
      const by = steps[event.key];
      if (by === undefined) return;
      event.preventDefault();
      event.stopPropagation();
      const [first, last] = this.store.state.range ?? [0, this.spans - 1];
      if (which === 0) this.set(Math.min(first + by, last), last);
      else this.set(first, Math.max(last + by, first));
    });
    return handle;
  }

  private spanLength(): number {
    return Math.max(this.profile.births.span / 1000, Number.EPSILON);
  }

  private end(): number {
    return Math.max(this.profile.duration, this.profile.snapshots.after.at(-1) ?? 0) / 1000;
  }

  private resize(): void {
    if (this.plot === null) this.draw();
    else if (this.place.clientWidth > 0 && this.place.clientWidth !== this.plot.width) {
      this.plot.setSize({ width: this.place.clientWidth, height: HEIGHT });
      this.arrange();
    }
  }

  private data(): uPlot.AlignedData {
    const { snapshots, births } = this.profile;
    const seconds = (times: number[]) => times.map((time) => time / 1000);
    const space = this.profile.windowed === null ? snapshots.space : snapshots.after.map(() => null);
    const curves = [seconds(snapshots.after), space, snapshots.rss];
    if (this.spans === 0) return curves as uPlot.AlignedData;
    const born = new Array<number>(this.spans + 1).fill(0);
    births.key.forEach((key, at) => (born[key] = births.space[at]));
    const starts = born.map((_, key) => Math.min((key * births.span) / 1000, this.end()));
    // The last span may end with the observation.
    return uPlot.join([curves as uPlot.AlignedData, [starts.slice(0, this.spans + 1), born]]);
  }

  private options(width: number): uPlot.Options {
    const [live, rss, born] = ["--live", "--rss", "--born"].map(color);
    const [grid, text] = ["--line", "--quiet"].map(color);
    const font = "11px system-ui, sans-serif";
    const size = (_: uPlot, values: number[]) => values.map((value) => (value === null ? "" : bytes(value)));
    // Powers of two, so that the labels are round.
    const incrs = Array.from({ length: 50 }, (_, power) => 2 ** power);
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1, size: 4 }, font };
    const from0: uPlot.Scale.Range = (_, __, most) => [0, Math.max(1, most) * 1.08];
    const wide = width > 560;
    return {
      width,
      height: HEIGHT,
      padding: [14, wide ? 4 : 10, 0, 4],
      legend: { show: false },
      cursor: { drag: { x: this.spans > 1, y: false, setScale: false }, points: { size: 6 }, y: false },
      scales: {
        x: { time: false, range: () => [0, Math.max(this.end(), 1e-3)] },
        live: { range: from0 },
        rss: { range: from0 },
        born: { range: (_, __, most) => [0, Math.max(1, most) * 2.5] },
      },
      axes: [
        { ...axis, values: (_, times) => times.map((time) => moment(time * 1000)), space: 90, size: 28, incrs: STEPS },
        { ...axis, scale: "live", values: size, size: 72, incrs, space: 28, show: this.profile.windowed === null },
        { ...axis, scale: "rss", side: 1, values: size, size: wide ? 72 : 0, show: wide, incrs, space: 28, grid: { show: false } },
      ],
      series: [
        {},
        { scale: "live", stroke: live, width: 2, spanGaps: true, fill: `color-mix(in srgb, ${live} 14%, transparent)` },
        { scale: "rss", stroke: rss, width: 1.5, dash: [5, 4], spanGaps: true },
        ...(this.spans > 0
          ? [{ scale: "born", stroke: "transparent", width: 0, spanGaps: true, fill: `color-mix(in srgb, ${born} 55%, transparent)`, paths: uPlot.paths.stepped?.({ align: 1 }), points: { show: false } }]
          : []),
      ],
      hooks: {
        setCursor: [(plot) => this.tell(plot)],
        setSelect: [(plot) => this.selected(plot)],
        // Only now is it known where a moment lies.
        ready: [() => this.arrange()],
      },
    };
  }

  private selected(plot: uPlot): void {
    const { left, width } = plot.select;
    if (width < 3) return;
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.choose(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
  }

  /** Marks, the peak and the exit, as words above their lines. */
  private annotate(): void {
    const { plot } = this;
    if (plot === null) return;
    const { marks, peak, exit } = this.profile;
    const notes = marks.filter((mark) => mark.name !== null).map((mark) => ({ name: mark.name ?? "", after: mark.after }));
    if (peak !== null) notes.push({ name: "peak", after: peak.after });
    if (exit !== null) notes.push({ name: "exit", after: exit.after });
    fill(
      this.notes,
      ...notes.slice(0, 200).map(({ name, after }) => {
        const note = h("div.note", { title: `${name}, after ${span(after)}` }, h("span", {}, name));
        const left = plot.valToPos(after / 1000, "x");
        note.style.left = `${left}px`;
        if (left > plot.over.clientWidth - 60) note.classList.add("left");
        return note;
      }),
    );
  }

  /** What the legend says: of the moment under the cursor, or of the end. */
  private tell(plot: uPlot | null): void {
    const { snapshots, births } = this.profile;
    const seconds = plot?.cursor.left !== undefined && plot.cursor.left >= 0 ? plot.posToVal(plot.cursor.left, "x") : null;
    let at = snapshots.after.length - 1;
    if (seconds !== null) while (at > 0 && snapshots.after[at] > seconds * 1000) at--;
    const item = (key: string, label: string, value: string) => h("span.item", {}, h(`span.${key}` as "span"), `${label} `, h("b", {}, value));
    const items = [h("span.when", {}, seconds === null ? "at the end" : `after ${span(Math.max(0, seconds) * 1000)}`)];
    if (at >= 0) {
      const rss = snapshots.rss[at];
      if (this.profile.windowed === null) items.push(item("swatch-live", "live", `${bytes(snapshots.space[at])} in ${blocks(snapshots.objects[at])}`));
      items.push(item("swatch-rss", "resident (RSS, own scale)", rss === null ? "unknown" : bytes(rss)));
    }
    if (births.span > 0) {
      const key = seconds === null ? -1 : Math.floor((seconds * 1000) / births.span);
      const part = births.key.indexOf(key);
      const value = seconds === null ? "columns" : part < 0 ? "0 B" : `${bytes(births.space[part])} in ${blocks(births.objects[part])}`;
      items.push(item("swatch-born", `born in ${span(births.span)} and still live`, value));
    }
    fill(this.legend, ...items);
  }

  /** The legend of the end, before anything is pointed at. */
  start(): void {
    this.tell(null);
  }
}
