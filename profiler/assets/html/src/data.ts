// What report/html/document.rs writes: the profile in columns. Times are milliseconds since the probes went live.

export interface Parts {
  count: number[];
  key: number[];
  space: number[];
  objects?: number[];
}

export interface Totals {
  inuse_space: number[];
  inuse_objects: number[];
  alloc_space: number[];
  alloc_objects: number[];
}

export interface Moment {
  after: number;
  space: number;
  objects: number;
}

export interface Profile {
  heapscope: string;
  command: string;
  exe: string;
  pid: number;
  started: string | null;
  duration: number;
  conditions: string;
  since: "attach" | "start";
  probes: string;
  at: "end" | "peak" | "exit";
  sampling: "exact" | "sampled" | "windows" | "usdt";
  /** Live bytes and blocks, allocated bytes and blocks. */
  totals: [number, number, number, number];
  errors: [number, number, number, number] | null;
  /** Where calls were seen in windows only: then what is said of live memory is of memory kept, rates in bytes a second. */
  windowed: { windows: number; observed: number; lower_bounds: boolean; space: number; objects: number; rate: number; rate_error: number | null; resident: string | null } | null;
  nothing_live: string | null;
  facts: string[];
  mapped: string[];
  remarks: { warning: boolean; text: string }[];
  overhead_percent: number | null;
  peak: Moment | null;
  exit: Moment | null;
  marks: (Moment & { name: string | null })[];
  snapshots: { after: number[]; space: number[]; objects: number[]; rss: (number | null)[] };
  births: { span: number; key: number[]; space: number[]; objects: number[] };
  trends: string[];
  names: {
    texts: string[];
    frames: { name: number[]; file: number[]; line: number[]; module: number[]; tint: number[]; flags: number[] };
    tree: { up: number[]; frame: number[] };
  };
  sites: {
    node: number[];
    allocator: number[];
    totals: Totals;
    errors: Totals;
    peak_space: number[];
    peak_objects: number[];
    temporary_objects: number[];
    oldest: (number | null)[];
    trend: number[];
    verdict: string[];
    growth: number[];
    births: Parts;
    over_time: Parts;
    sizes: { count: number[]; smallest: number[]; largest: (number | null)[]; alloc_objects: number[]; inuse_objects: number[] };
    threads: Parts;
    generations: Parts;
    kept_rate: number[];
    kept_error: (number | null)[];
  };
}

/** Where the parts of each site begin; one more than there are sites. */
export function begins(count: number[]): Uint32Array {
  const begin = new Uint32Array(count.length + 1);
  for (let site = 0; site < count.length; site++) begin[site + 1] = begin[site] + count[site];
  return begin;
}

/** Inflates the profile that lies in the page. */
export async function load(): Promise<Profile> {
  const place = document.getElementById("profile");
  const text = place?.textContent?.trim() ?? "";
  place?.remove();
  if (text === "") throw new Error("There is no profile in this file: it may be cut short.");
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser is too old for this report: Chrome 123, Firefox 120 and Safari 17.5 can read it.");
  }
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return (await new Response(stream).json()) as Profile;
}
