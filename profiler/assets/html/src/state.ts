// What the reader has chosen. Whoever shows it listens; several changes at once are one.

export type MetricKey = "live_space" | "live_objects" | "alloc_space" | "alloc_objects" | "peak_space" | "temporary_objects";

export interface Hidden {
  allocator: boolean;
  interpreter: boolean;
  start: boolean;
}

export interface State {
  metric: MetricKey;
  /** First and last span of births; `null` for the whole time. */
  range: [number, number] | null;
  /** Whether stacks begin at the function that allocates. */
  fromLeaf: boolean;
  upright: boolean;
  hidden: Hidden;
  /** Frames narrower than this share of the graph's width are left out. */
  least: number;
  search: string;
  /** Names from the root of the graph to the frame that fills it. */
  zoom: number[];
  filter: string;
  /** Index of a trend, or -1 for all. */
  trend: number;
  site: number | null;
}

type Listener = (changed: Set<keyof State>) => void;

export class Store {
  private readonly listeners: Listener[] = [];
  private changed = new Set<keyof State>();

  constructor(readonly state: State) {}

  listen(listener: Listener): void {
    this.listeners.push(listener);
  }

  set(change: Partial<State>): void {
    for (const [key, value] of Object.entries(change) as [keyof State, never][]) {
      if (JSON.stringify(this.state[key]) === JSON.stringify(value)) continue;
      this.state[key] = value;
      if (this.changed.size === 0) requestAnimationFrame(() => this.tell());
      this.changed.add(key);
    }
  }

  private tell(): void {
    const changed = this.changed;
    this.changed = new Set();
    for (const listener of this.listeners) listener(changed);
  }
}
