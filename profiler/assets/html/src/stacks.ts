// Stacks as sequences of names, sorted: then every frame of the graph is a run of neighbours, and its width a difference of
// two sums. Only what is wide enough to be seen is ever made, so that a hundred thousand sites are as quick as a hundred.

import type { Profile } from "./data";
import type { Hidden } from "./state";

export const TINTS = ["program", "python", "library", "runtime", "allocator", "jit", "interpreter", "remark"] as const;
const RUNTIME = 3;
const ALLOCATOR = 4;
const INTERPRETER = 6;
const PYTHON = 1;

export const IS_PYTHON = 1;
export const IS_INLINED = 2;
export const IS_GUESSED = 4;

/** A frame of the graph, as d3-flame-graph takes it. */
export interface Node {
  name: string;
  /** Number of the name; -1 for everything. */
  label: number;
  value: number;
  space: number;
  objects: number;
  /** Part of `value` that ends here. */
  self: number;
  path: number[];
  children: Node[];
  /** Around what fills the graph. */
  fade: boolean;
}

export interface Drawn {
  root: Node;
  nodes: number;
  least: number;
  /** Of the zoomed path, the names that are there. */
  zoom: number[];
  /** Sites in what fills the graph. */
  sites: Uint32Array;
}

/** More frames make the browser slow, and nobody can see them. */
const MOST_NODES = 4000;

export class Stacks {
  readonly tintOfName: Uint8Array;
  private readonly tree: Profile["names"]["tree"];
  private readonly frames: Profile["names"]["frames"];

  constructor(private readonly profile: Profile) {
    const { tree, frames, texts } = profile.names;
    this.tree = tree;
    this.frames = frames;
    this.tintOfName = new Uint8Array(texts.length);
    for (let frame = frames.name.length - 1; frame >= 0; frame--) this.tintOfName[frames.name[frame]] = frames.tint[frame];
  }

  /** The frames of a site, leaf first. */
  whole(site: number): number[] {
    const stack: number[] = [];
    let node = this.profile.sites.node[site];
    for (;;) {
      stack.push(this.tree.frame[node]);
      const up = this.tree.up[node];
      if (up === 0) return stack;
      node -= up;
    }
  }

  /** The frames that are shown, leaf first; as symbolize/fold.rs does it, which the other reports use. */
  shown(site: number, hidden: Hidden): number[] {
    let stack = this.whole(site);
    const tint = (frame: number) => this.frames.tint[frame];
    if (hidden.allocator) {
      const layers = stack.findIndex((frame) => tint(frame) !== ALLOCATOR);
      stack = stack.slice(layers < 0 ? stack.length - 1 : layers);
    }
    if (hidden.start) {
      let end = stack.length;
      while (end > 1 && tint(stack[end - 1]) === RUNTIME) end--;
      stack = stack.slice(0, end);
    }
    if (hidden.interpreter && stack.some((frame) => tint(frame) === PYTHON)) {
      stack = stack.filter((frame, at) => at === 0 || tint(frame) !== INTERPRETER);
    }
    return stack;
  }

  /** For each site, whether a frame of its whole stack passes. */
  sitesWith(passes: (frame: number) => boolean): Uint8Array {
    const ofFrame = Uint8Array.from(this.frames.name, (_, frame) => (passes(frame) ? 1 : 0));
    const { up, frame } = this.tree;
    const ofNode = new Uint8Array(up.length);
    for (let node = 0; node < up.length; node++) {
      ofNode[node] = ofFrame[frame[node]] | (up[node] === 0 ? 0 : ofNode[node - up[node]]);
    }
    return Uint8Array.from(this.profile.sites.node, (node) => ofNode[node]);
  }

  sorted(fromLeaf: boolean, hidden: Hidden): Sorted {
    const { node } = this.profile.sites;
    const begin = new Uint32Array(node.length + 1);
    const names: number[] = [];
    for (let site = 0; site < node.length; site++) {
      const stack = this.shown(site, hidden);
      if (!fromLeaf) stack.reverse();
      for (const frame of stack) names.push(this.frames.name[frame]);
      begin[site + 1] = names.length;
    }
    return new Sorted(this.profile.names.texts, Uint32Array.from(names), begin);
  }
}

export class Sorted {
  private readonly order: Uint32Array;

  constructor(
    private readonly texts: string[],
    private readonly names: Uint32Array,
    private readonly begin: Uint32Array,
  ) {
    this.order = Uint32Array.from({ length: begin.length - 1 }, (_, site) => site);
    this.order.sort((a, b) => this.compare(a, b));
  }

  private compare(a: number, b: number): number {
    const [beginA, beginB] = [this.begin[a], this.begin[b]];
    const [lengthA, lengthB] = [this.begin[a + 1] - beginA, this.begin[b + 1] - beginB];
    const common = Math.min(lengthA, lengthB);
    for (let at = 0; at < common; at++) {
      const difference = this.names[beginA + at] - this.names[beginB + at];
      if (difference !== 0) return difference;
    }
    return lengthA - lengthB || a - b;
  }

  /** The name at this depth of the site at this place; -1 where its stack is not so deep. */
  private nameAt(place: number, depth: number): number {
    const site = this.order[place];
    const at = this.begin[site] + depth;
    return at < this.begin[site + 1] ? this.names[at] : -1;
  }

  /** The end of the run that has the same name at this depth as the first. */
  private runEnd(from: number, end: number, depth: number): number {
    const name = this.nameAt(from, depth);
    let [low, high] = [from + 1, end];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.nameAt(middle, depth) === name) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The first place whose name at this depth is at least this. */
  private firstOf(name: number, from: number, end: number, depth: number): number {
    let [low, high] = [from, end];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.nameAt(middle, depth) < name) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The share of `values` at sites that pass a test of one of their shown names. */
  matched(values: Float64Array, passes: (name: number) => boolean): number {
    const known = new Map<number, boolean>();
    let total = 0;
    for (let site = 0; site + 1 < this.begin.length; site++) {
      if (values[site] === 0) continue;
      for (let at = this.begin[site]; at < this.begin[site + 1]; at++) {
        const name = this.names[at];
        let pass = known.get(name);
        if (pass === undefined) known.set(name, (pass = passes(name)));
        if (pass) {
          total += values[site];
          break;
        }
      }
    }
    return total;
  }

  /** The graph of `values`, with the frame at the end of `zoom` over its whole width. */
  draw(values: Float64Array, space: Float64Array, objects: Float64Array, zoom: number[], least: number): Drawn {
    const sums = [values, space, objects].map((numbers) => this.sums(numbers));
    const between = (which: number, from: number, end: number) => sums[which][end] - sums[which][from];
    let budget = 0;
    let smallest = 0;

    const make = (label: number, path: number[], from: number, end: number): Node => ({
      name: label < 0 ? "all" : this.texts[label],
      label,
      value: between(0, from, end),
      space: between(1, from, end),
      objects: between(2, from, end),
      self: 0,
      path,
      children: [],
      fade: false,
    });
    const grow = (node: Node, from: number, end: number, depth: number): void => {
      let at = from;
      while (at < end && this.nameAt(at, depth) < 0) at++;
      node.self = between(0, from, at);
      while (at < end && budget >= 0) {
        const next = this.runEnd(at, end, depth);
        if (between(0, at, next) >= smallest && between(0, at, next) > 0) {
          budget--;
          const name = this.nameAt(at, depth);
          const child = make(name, [...node.path, name], at, next);
          node.children.push(child);
          grow(child, at, next, depth + 1);
        }
        at = next;
      }
    };

    const chain: Node[] = [make(-1, [], 0, this.order.length)];
    let [from, end] = [0, this.order.length];
    const found: number[] = [];
    for (const name of zoom) {
      const begin = this.firstOf(name, from, end, found.length);
      if (begin >= end || this.nameAt(begin, found.length) !== name) break;
      const last = this.runEnd(begin, end, found.length);
      if (between(0, begin, last) <= 0) break;
      [from, end] = [begin, last];
      found.push(name);
      chain.push(make(name, [...found], from, end));
    }
    const top = chain[chain.length - 1];
    for (let share = least; ; share *= 2) {
      budget = MOST_NODES;
      smallest = top.value * share;
      top.children = [];
      grow(top, from, end, found.length);
      if (budget >= 0) {
        for (let at = chain.length - 2; at >= 0; at--) Object.assign(chain[at], { children: [chain[at + 1]], fade: true });
        const drawn = MOST_NODES - budget + chain.length;
        return { root: chain[0], nodes: drawn, least: share, zoom: found, sites: this.order.slice(from, end) };
      }
    }
  }

  private sums(numbers: Float64Array): Float64Array {
    const sums = new Float64Array(numbers.length + 1);
    for (let place = 0; place < numbers.length; place++) sums[place + 1] = sums[place] + numbers[this.order[place]];
    return sums;
  }
}
