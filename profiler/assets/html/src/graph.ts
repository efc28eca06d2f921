// The graph: d3-flame-graph draws what stacks.ts made wide enough to be seen, and zooming makes it anew.

import flamegraph from "d3-flame-graph";
import { select } from "d3-selection";

import { fill, h } from "./dom";
import { type Metric } from "./metric";
import { TINTS, type Drawn, type Node } from "./stacks";
import type { Store } from "./state";
import { blocks, bytes, percent } from "./units";

const ROW = 20;
/** Lower and higher it is not by itself; the reader may pull it. */
const [LOWEST, HIGHEST] = [140, 440];

interface Laid {
  data: Node;
  x0: number;
  x1: number;
  parent: Laid | null;
  children?: Laid[];
}

export class Graph {
  readonly element = h("div.graph", { tabindex: 0, role: "group", "aria-label": "Stacks; arrows move, Enter zooms, Backspace goes back" });
  private readonly tip = h("div.tip", { role: "status", hidden: true });
  readonly said = h("div.said", { "aria-live": "polite" });
  private chart: any | null = null;
  private drawn: Drawn | null = null;
  private metric: Metric | null = null;
  private matches: (name: number) => boolean = () => false;
  private total = 0;
  private current: number[] = [];
  private upright = false;
  private width = 0;
  private given = "";

  constructor(
    private readonly store: Store,
    private readonly tintOfName: Uint8Array,
  ) {
    document.body.append(this.tip);
    // Before d3-flame-graph zooms by itself into what was left out.
    this.element.addEventListener("click", (event) => this.click(event), { capture: true });
    this.element.addEventListener("mousemove", (event) => this.hover(event));
    this.element.addEventListener("mouseleave", () => (this.tip.hidden = true));
    this.element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => {
      if (this.drawn !== null && this.element.clientWidth !== this.width) this.paint();
    }).observe(this.element);
  }

  show(drawn: Drawn, metric: Metric, total: number, upright: boolean, matches: (name: number) => boolean): void {
    [this.drawn, this.metric, this.total, this.matches] = [drawn, metric, total, matches];
    if (this.upright !== upright) this.chart = null;
    this.upright = upright;
    if (!drawn.zoom.every((name, depth) => this.current[depth] === name)) this.current = drawn.zoom;
    this.paint();
  }

  private paint(): void {
    if (this.drawn === null) return;
    const { root } = this.drawn;
    this.tip.hidden = true;
    if (root.value === 0) {
      this.chart = null;
      fill(this.element, h("p.nothing", {}, "Nothing to draw: there is none of this in the chosen range."));
      return;
    }
    this.width = this.element.clientWidth;
    if (this.chart === null) {
      this.element.replaceChildren();
      this.chart = flamegraph()
        .cellHeight(ROW)
        .transitionDuration(0)
        .minFrameSize(0.4)
        .inverted(!this.upright)
        .sort(false)
        .tooltip(Object.assign(() => {}, { show() {}, hide() {} }))
        .getName((node: Laid) => node.data.name)
        .setLabelHandler(() => "")
        .setDetailsHandler(() => {})
        .setColorMapper((node: Laid) => this.color(node.data));
      this.chart.width(this.width).height(this.height(root));
      select(this.element).datum(root).call(this.chart);
    } else {
      this.chart.width(this.width).height(this.height(root)).update(root);
    }
    this.element.querySelector("svg")?.setAttribute("height", String(this.height(root)));
    if (!this.pulled()) this.element.style.height = this.given = `${Math.min(this.height(root), HIGHEST)}px`;
    if (this.upright) this.element.scrollTop = this.element.scrollHeight;
    this.mark();
  }

  /** Whether the reader has given it another height. */
  private pulled(): boolean {
    return this.given !== "" && this.element.style.height !== this.given;
  }

  private height(root: Node): number {
    const depth = (node: Node): number => 1 + node.children.reduce((most, child) => Math.max(most, depth(child)), 0);
    return Math.max(depth(root) * ROW + 2, LOWEST);
  }

  private color(node: Node): string {
    if (node.label < 0) return "var(--all)";
    if (this.matches(node.label)) return "var(--match)";
    // A name keeps its shade, and neighbours differ.
    const shade = (Math.imul(node.label, 2654435761) >>> 24) % 3;
    return `var(--${TINTS[this.tintOfName[node.label]]}-${shade})`;
  }

  private at(event: Event): Laid | undefined {
    const group = (event.target as Element).closest?.("g.frame");
    return group === null || group === undefined ? undefined : (select(group).datum() as Laid);
  }

  private click(event: MouseEvent): void {
    const laid = this.at(event);
    if (laid === undefined) return;
    event.stopPropagation();
    this.current = laid.data.path;
    this.store.set({ zoom: laid.data.path });
    this.mark();
  }

  private hover(event: MouseEvent): void {
    const laid = this.at(event);
    this.tip.hidden = laid === undefined;
    if (laid === undefined) return;
    fill(this.tip, ...this.words(laid));
    const { offsetWidth, offsetHeight } = this.tip;
    const left = Math.min(event.clientX + 14, window.innerWidth - offsetWidth - 8);
    const below = event.clientY + 18;
    const top = below + offsetHeight < window.innerHeight ? below : event.clientY - offsetHeight - 10;
    this.tip.style.left = `${Math.max(8, left)}px`;
    this.tip.style.top = `${Math.max(8, top)}px`;
  }

  private words({ data, parent }: Laid): HTMLElement[] {
    const unit = this.metric?.unit ?? String;
    const shares = [`${percent(data.value, this.total)} of all`];
    if (parent !== null && parent.data.label >= 0) shares.push(`${percent(data.value, parent.data.value)} of ${parent.data.name}`);
    const live = this.metric?.live === true ? `${bytes(data.space)} in ${blocks(data.objects)}` : unit(data.value);
    const own = data.self > 0 ? h("div", {}, `${unit(data.self)} allocated here`) : null;
    return [
      h("strong", {}, data.name),
      h("div", {}, `${live}, ${shares[0]}`),
      shares.length > 1 ? h("div.quiet", {}, shares[1]) : h("span"),
      own ?? h("span"),
    ];
  }

  /** Shows where the keyboard is. */
  private mark(): void {
    const wanted = this.current.join();
    this.element.querySelectorAll("g.frame").forEach((group) => {
      const laid = select(group).datum() as Laid;
      const is = laid.data.path.join() === wanted;
      group.classList.toggle("current", is);
      // The line around it would hide it.
      group.classList.toggle("thin", (laid.x1 - laid.x0) * this.width < 4);
      if (is && document.activeElement === this.element) {
        this.said.textContent = this.words(laid).map((line) => line.textContent).filter(Boolean).join("; ");
      }
    });
  }

  private find(path: number[]): { node: Node; siblings: Node[] } | null {
    let node = this.drawn?.root;
    let siblings: Node[] = node === undefined ? [] : [node];
    for (const label of path) {
      siblings = node?.children ?? [];
      node = siblings.find((child) => child.label === label);
      if (node === undefined) return null;
    }
    return node === undefined ? null : { node, siblings };
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const here = this.find(this.current) ?? this.find((this.current = []));
    if (here === null) return;
    const { node, siblings } = here;
    const beside = (step: number) => siblings[siblings.indexOf(node) + step]?.path ?? this.current;
    const parent = this.current.slice(0, -1);
    const child = [...node.children].sort((a, b) => b.value - a.value)[0]?.path ?? this.current;
    const moves: Record<string, () => number[]> = {
      ArrowLeft: () => beside(-1),
      ArrowRight: () => beside(1),
      ArrowUp: () => (this.upright ? child : parent),
      ArrowDown: () => (this.upright ? parent : child),
    };
    if (event.key in moves) {
      this.current = moves[event.key]();
      this.mark();
      const group = this.element.querySelector("g.current");
      group?.scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" || event.key === " ") {
      this.store.set({ zoom: this.current });
    } else if (event.key === "Backspace") {
      this.current = this.store.state.zoom.slice(0, -1);
      this.store.set({ zoom: this.current });
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
