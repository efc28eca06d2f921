// The sites as a table: as many rows as fit are there, whatever their number.

import { Virtualizer, elementScroll, observeElementOffset, observeElementRect } from "@tanstack/virtual-core";

import { fill, h } from "./dom";
import type { Profile } from "./data";
import type { Live } from "./metric";
import type { Stacks } from "./stacks";
import type { Store } from "./state";
import { bytes, count, growth, percent, span } from "./units";

const ROW = 44;

interface Column {
  key: string;
  label: string;
  title: string;
  /** Whether the largest comes first. */
  down: boolean;
  number: (site: number) => number | string;
}

export class Table {
  readonly element = h("div.table", { role: "grid", tabindex: 0, "aria-label": "Sites; arrows move, Enter shows details" });
  private readonly head = h("div.row.head", { role: "row" });
  private readonly body = h("div.rows", { role: "rowgroup" });
  private readonly columns: Column[];
  private readonly virtual: Virtualizer<HTMLElement, HTMLElement>;
  private order: number[] = [];
  private sort: { key: string; down: boolean } = { key: "live", down: true };
  private live: Live = { space: new Float64Array(), objects: new Float64Array() };
  private total = 0;
  private place = 0;

  constructor(
    private readonly profile: Profile,
    private readonly stacks: Stacks,
    private readonly store: Store,
  ) {
    const { sites, names, trends } = profile;
    const windowed = profile.windowed !== null;
    const column = (key: string, label: string, title: string, number: Column["number"], down = true): Column => ({ key, label, title, number, down });
    this.columns = [
      column("site", "Site", "The function that asked for the memory, and its caller", (site) => this.title(site).name, false),
      windowed
        ? column("live", "Kept/s", "Bytes a second that were allocated and not seen freed", (site) => sites.kept_rate[site])
        : column("live", "Live", "Bytes allocated and not freed", (site) => this.live.space[site]),
      column("blocks", "Blocks", windowed ? "Blocks allocated in windows and not seen freed" : "Blocks allocated and not freed", (site) => this.live.objects[site]),
      column("allocated", "Allocated", "Bytes allocated in all", (site) => sites.totals.alloc_space[site]),
      windowed
        ? column("growth", "Kept", "Bytes allocated in windows and not seen freed", (site) => this.live.space[site])
        : column("growth", "Growth", "Net growth in the second half of the time that the site was seen", (site) => sites.growth[site]),
      column("oldest", "Oldest", windowed ? "Age of the oldest block that was not seen freed" : "Age of the oldest block that lives", (site) => sites.oldest[site] ?? -1),
      // The most alarming first.
      column("verdict", windowed ? "" : "Verdict", "What its memory does over time", (site) => trends.length - sites.trend[site]),
      column("allocator", "Allocator", "The allocator that served it", (site) => names.texts[sites.allocator[site]], false),
    ];
    this.element.append(this.head, this.body);
    this.virtual = new Virtualizer<HTMLElement, HTMLElement>({
      count: 0,
      getScrollElement: () => this.element,
      estimateSize: () => ROW,
      overscan: 6,
      scrollPaddingStart: 34,
      observeElementRect,
      observeElementOffset,
      scrollToFn: elementScroll,
      onChange: () => this.paint(),
    });
    this.virtual._didMount();
    this.virtual._willUpdate();
    this.element.addEventListener("keydown", (event) => this.key(event));
    this.drawHead();
  }

  /** Shows these sites. */
  show(sites: number[], live: Live, total: number): void {
    [this.order, this.live, this.total] = [sites, live, total];
    this.arrange();
  }

  /** The site before or after the one that is shown in detail. */
  beside(step: number): number | null {
    const at = this.order.indexOf(this.store.state.site ?? -1);
    return this.order[at + step] ?? null;
  }

  /** The site's function and its caller, without the allocator's frames. */
  title(site: number): { name: string; by: string } {
    const { names } = this.profile;
    const stack = this.stacks.shown(site, { allocator: true, interpreter: true, start: false });
    const text = (frame: number | undefined) => {
      if (frame === undefined) return "";
      const file = names.texts[names.frames.file[frame]];
      const line = names.frames.line[frame];
      const short = file.slice(file.lastIndexOf("/") + 1);
      const place = file === "" || (names.frames.flags[frame] & 1) !== 0 ? "" : ` (${short}${line > 0 ? `:${line}` : ""})`;
      return names.texts[names.frames.name[frame]] + place;
    };
    return { name: text(stack[0]), by: text(stack[1]) };
  }

  private arrange(): void {
    const column = this.columns.find((one) => one.key === this.sort.key) ?? this.columns[1];
    const keys: (number | string)[] = new Array(this.profile.sites.node.length);
    for (const site of this.order) keys[site] = column.number(site);
    const sign = this.sort.down ? -1 : 1;
    this.order.sort((a, b) => {
      const [one, other] = [keys[a], keys[b]];
      return one < other ? -sign : one > other ? sign : this.live.space[b] - this.live.space[a] || a - b;
    });
    this.place = Math.min(this.place, Math.max(0, this.order.length - 1));
    this.virtual.setOptions({ ...this.virtual.options, count: this.order.length });
    this.virtual._willUpdate();
    this.element.setAttribute("aria-rowcount", String(this.order.length + 1));
    this.paint();
  }

  private drawHead(): void {
    fill(
      this.head,
      ...this.columns.map(({ key, label, title, down }) => {
        const sorted = this.sort.key === key ? (this.sort.down ? "descending" : "ascending") : "none";
        const sort = () => {
          this.sort = { key, down: this.sort.key === key ? !this.sort.down : down };
          this.drawHead();
          this.element.scrollTop = 0;
          this.arrange();
          this.head.querySelector<HTMLElement>(`.${key} button`)?.focus();
        };
        const arrow = { none: "", descending: "↓", ascending: "↑" }[sorted];
        return h(`div.${key}` as "div", { role: "columnheader", "aria-sort": sorted }, h("button", { title, onclick: sort }, label, h("i", {}, arrow)));
      }),
    );
  }

  private paint(): void {
    this.body.style.height = `${this.virtual.getTotalSize()}px`;
    const items = this.virtual.getVirtualItems();
    fill(this.body, ...items.map((item) => this.row(item.index, item.start)));
    if (this.order.length === 0) this.body.append(h("p.nothing", {}, this.profile.nothing_live ?? "No site is left by the filters."));
  }

  private row(index: number, top: number): HTMLElement {
    const site = this.order[index];
    const { sites, names, trends } = this.profile;
    const { name, by } = this.title(site);
    const space = this.live.space[site];
    const windowed = this.profile.windowed !== null;
    const [shown, error] = windowed ? [sites.kept_rate[site], sites.kept_error[site] ?? undefined] : [space, sites.errors.inuse_space[site]];
    const ranged = this.store.state.range !== null;
    const oldest = sites.oldest[site];
    const trend = sites.trend[site];
    const cell = (key: string, ...children: (Node | string | null)[]) => h(`div.${key}` as "div", { role: "gridcell" }, ...children);
    const share = h("span.share");
    share.style.width = `${this.total > 0 ? (100 * space) / this.total : 0}%`;
    const row = h(
      "div.row",
      {
        role: "row",
        "aria-rowindex": index + 2,
        "aria-selected": String(site === this.store.state.site),
        "data-site": site,
        onclick: () => {
          this.place = index;
          this.store.set({ site });
        },
      },
      cell("site", h("b", { title: name }, name), by === "" ? null : h("span.quiet", { title: by }, `← ${by}`)),
      cell("live", h("b", {}, windowed ? `${bytes(shown)}/s` : bytes(shown)), h("span.quiet", {}, `${percent(space, this.total)}${error !== undefined && !ranged ? ` ±${percent(error, shown)}` : ""}`), share),
      cell("blocks", count(this.live.objects[site])),
      cell("allocated", bytes(sites.totals.alloc_space[site])),
      cell("growth", windowed ? bytes(space) : growth(sites.growth[site])),
      cell("oldest", oldest === null ? "-" : span(oldest)),
      cell("verdict", windowed ? null : h(`span.trend.trend-${trend}` as "span", { title: sites.verdict[site] }, trends[trend])),
      cell("allocator", names.texts[sites.allocator[site]]),
    );
    row.style.transform = `translateY(${top}px)`;
    row.classList.toggle("here", index === this.place);
    return row;
  }

  private key(event: KeyboardEvent): void {
    if (event.target !== this.element || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(this.element.clientHeight / ROW) - 1);
    const moves: Record<string, number> = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -this.order.length, End: this.order.length };
    if (event.key in moves) {
      this.place = Math.min(this.order.length - 1, Math.max(0, this.place + moves[event.key]));
      this.virtual.scrollToIndex(this.place);
      this.paint();
      if (this.store.state.site !== null) this.store.set({ site: this.order[this.place] });
    } else if (event.key === "Enter" || event.key === " ") {
      this.store.set({ site: this.order[this.place] ?? null });
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  /** Another site is shown in detail. */
  selected(): void {
    const at = this.order.indexOf(this.store.state.site ?? -1);
    if (at >= 0) {
      this.place = at;
      this.virtual.scrollToIndex(at);
    }
    this.paint();
  }
}
