// Light, dark, or whatever the system says.

import { h } from "./dom";

const THEMES = ["auto", "light", "dark"] as const;
type Theme = (typeof THEMES)[number];
const KEY = "heapscope-theme";

/** A file's own storage may be forbidden. */
function stored(): Theme {
  try {
    return THEMES.find((theme) => theme === localStorage.getItem(KEY)) ?? "auto";
  } catch {
    return "auto";
  }
}

export class ThemeSwitch {
  readonly button = h("button", { title: "Light or dark (d)", onclick: () => this.next() });
  private theme = stored();

  constructor(private readonly changed: () => void) {
    this.apply();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.changed());
  }

  next(): void {
    this.theme = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length];
    try {
      localStorage.setItem(KEY, this.theme);
    } catch {
      // It holds for this time only.
    }
    this.apply();
    this.changed();
  }

  private apply(): void {
    document.documentElement.dataset.theme = this.theme;
    const sign = { auto: "◐", light: "☀", dark: "☾" }[this.theme];
    this.button.textContent = `${sign} ${this.theme}`;
  }
}
