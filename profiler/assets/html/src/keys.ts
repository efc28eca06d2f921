// The keyboard; help.ts lists the same keys.

import type { Controls } from "./controls";
import type { Graph } from "./graph";
import type { Store } from "./state";
import type { Table } from "./table";
import type { ThemeSwitch } from "./theme";
import type { Timeline } from "./timeline";

interface Parts {
  store: Store;
  controls: Controls;
  graph: Graph;
  table: Table;
  timeline: Timeline;
  theme: ThemeSwitch;
  help: HTMLDialogElement;
}

export function listen({ store, controls, graph, table, timeline, theme, help }: Parts): void {
  const { state } = store;
  const beside = (step: number) => {
    const site = table.beside(step);
    if (site !== null) store.set({ site });
  };
  const back = () => {
    if (state.site !== null) store.set({ site: null });
    else if (state.search !== "") store.set({ search: "" });
    else if (state.zoom.length > 0) store.set({ zoom: [] });
    else if (state.filter !== "" || state.trend >= 0) store.set({ filter: "", trend: -1 });
    else store.set({ range: null });
  };
  const actions: Record<string, () => void> = {
    "?": () => help.showModal(),
    "/": () => controls.search.focus(),
    f: () => controls.filter.focus(),
    g: () => graph.element.focus(),
    t: () => table.element.focus(),
    j: () => beside(1),
    k: () => beside(-1),
    m: () => controls.turnMetric(1),
    M: () => controls.turnMetric(-1),
    v: () => store.set({ upright: !state.upright }),
    r: () => store.set({ fromLeaf: !state.fromLeaf, zoom: [] }),
    h: () => controls.toggleHidden(),
    "[": () => timeline.step(0, -1),
    "]": () => timeline.step(0, 1),
    "{": () => timeline.step(1, -1),
    "}": () => timeline.step(1, 1),
    "0": () => store.set({ zoom: [], range: null }),
    d: () => theme.next(),
    Escape: back,
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    const typing = event.target instanceof HTMLInputElement && event.target.type === "search";
    if (typing) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (event.target instanceof HTMLSelectElement && event.key !== "Escape") return;
    const action = actions[event.key];
    if (action === undefined) return;
    event.preventDefault();
    action();
  });
}
