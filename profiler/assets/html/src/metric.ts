// The numbers that the graph and the table can show, for each site.

import { begins, type Profile } from "./data";
import type { MetricKey } from "./state";
import { blocks, bytes } from "./units";

export interface Metric {
  key: MetricKey;
  label: string;
  unit: (number: number) => string;
  /** Whether it is about what lives, so that a range of births selects from it. */
  live: boolean;
}

export function metrics({ at, windowed }: Profile): Metric[] {
  if (windowed !== null) {
    return [
      { key: "live_space", label: "Kept bytes", unit: bytes, live: true },
      { key: "live_objects", label: "Kept blocks", unit: blocks, live: true },
      { key: "alloc_space", label: "Allocated bytes (estimate)", unit: bytes, live: false },
      { key: "alloc_objects", label: "Allocated blocks (estimate)", unit: blocks, live: false },
    ];
  }
  const when = { end: "", peak: " at the peak", exit: " at exit" }[at];
  return [
    { key: "live_space", label: `Live bytes${when}`, unit: bytes, live: true },
    { key: "live_objects", label: `Live blocks${when}`, unit: blocks, live: true },
    { key: "alloc_space", label: "Allocated bytes", unit: bytes, live: false },
    { key: "alloc_objects", label: "Allocated blocks", unit: blocks, live: false },
    { key: "peak_space", label: "Bytes at the peak", unit: bytes, live: false },
    { key: "temporary_objects", label: "Temporary blocks", unit: blocks, live: false },
  ];
}

export interface Live {
  space: Float64Array;
  objects: Float64Array;
}

export class Numbers {
  private readonly births: Uint32Array;
  private readonly whole: Live;
  /** Spans of births from the start to the end. */
  readonly spans: number;

  constructor(private readonly profile: Profile) {
    const { sites, births, duration } = profile;
    this.births = begins(sites.births.count);
    this.whole = { space: Float64Array.from(sites.totals.inuse_space), objects: Float64Array.from(sites.totals.inuse_objects) };
    const told = births.span > 0 ? Math.ceil(duration / births.span) : 0;
    this.spans = births.key.length === 0 ? 0 : Math.max(told, (births.key.at(-1) ?? 0) + 1);
  }

  /** What lives of each site; of a range, what was born in it and lives at the end. */
  live(range: [number, number] | null): Live {
    if (range === null) return this.whole;
    const { key, space, objects = [] } = this.profile.sites.births;
    const live = { space: new Float64Array(this.whole.space.length), objects: new Float64Array(this.whole.space.length) };
    for (let site = 0; site + 1 < this.births.length; site++) {
      for (let part = this.births[site]; part < this.births[site + 1]; part++) {
        if (key[part] < range[0] || key[part] > range[1]) continue;
        live.space[site] += space[part];
        live.objects[site] += objects[part];
      }
    }
    return live;
  }

  of(metric: MetricKey, live: Live): Float64Array {
    const { sites } = this.profile;
    switch (metric) {
      case "live_space":
        return live.space;
      case "live_objects":
        return live.objects;
      case "alloc_space":
      case "alloc_objects":
        return Float64Array.from(sites.totals[metric]);
      case "peak_space":
      case "temporary_objects":
        return Float64Array.from(sites[metric]);
    }
  }
}

export function sum(numbers: ArrayLike<number>): number {
  let total = 0;
  for (let at = 0; at < numbers.length; at++) total += numbers[at];
  return total;
}
