// Numbers for people, as report/units.rs writes them.

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/** `512 B`, `12.3 MiB`. */
export function bytes(number: number): string {
  if (number < 0) return `−${bytes(-number)}`;
  if (number < 1024) return `${Math.round(number)} B`;
  let unit = -1;
  let scaled = number;
  while (scaled >= 1024 && unit < UNITS.length - 1) {
    scaled /= 1024;
    unit++;
  }
  return `${scaled.toFixed(1)} ${UNITS[unit]}`;
}

const COUNT = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** `4,567`. */
export function count(number: number): string {
  return COUNT.format(number);
}

/** `1 block`, `4,567 blocks`. */
export function counted(number: number, one: string, many: string): string {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function blocks(number: number): string {
  return counted(number, "block", "blocks");
}

/** `5 s`, `2 min 5 s`, `3 h 4 min`, of milliseconds. */
export function span(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  const whole = Math.floor(seconds);
  if (seconds < 120) return `${seconds.toFixed(1).replace(/\.0$/, "")} s`;
  if (seconds < 7200) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (seconds < 172800) return `${Math.floor(whole / 3600)} h ${Math.floor(whole / 60) % 60} min`;
  return `${count(Math.floor(whole / 86400))} d ${Math.floor(whole / 3600) % 24} h`;
}

/** The same for the labels of an axis: `2 min` where nothing is left of the minute. */
export function moment(milliseconds: number): string {
  return span(milliseconds).replace(/^(\d.*(?:min|h|d)) 0 (?:s|min|h)$/, "$1");
}

/** `82.9%`; what is more than nothing is never `0.0%`. */
export function percent(part: number, whole: number): string {
  if (whole === 0) return "-";
  const share = (100 * part) / whole;
  return part > 0 && share < 0.05 ? "<0.1%" : `${share.toFixed(1)}%`;
}

/** ` ± 1.2 MiB`, or nothing where a number is exact. */
export function plusMinus(error: number | undefined, unit: (number: number) => string): string {
  return error === undefined ? "" : ` ± ${unit(error)}`;
}

/** Bytes a minute: `+1.0 MiB/min`, and by the hour where that is little. */
export function growth(perMinute: number): string {
  if (perMinute === 0) return "0";
  const sign = perMinute < 0 ? "−" : "+";
  const size = Math.abs(perMinute);
  return size >= 1024 ? `${sign}${bytes(size)}/min` : `${sign}${bytes(size * 60)}/h`;
}
