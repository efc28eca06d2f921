// The keys, what the page shows, and the licences of what it is made of.

import { h } from "./dom";

const KEYS: [string, string][] = [
  ["?", "this help"],
  ["/", "search the graph"],
  ["f", "filter the table"],
  ["g", "to the graph: arrows move, Enter zooms, Backspace goes back"],
  ["t", "to the table: arrows move, Enter shows details"],
  ["j, k", "details of the next site, of the one before"],
  ["m, M", "next metric, the one before"],
  ["v", "icicle or flames"],
  ["r", "from the root or from the function that allocates"],
  ["h", "hide or show allocator, interpreter and start of threads"],
  ["[ ], { }", "move the first handle, the second one"],
  ["0", "whole graph and whole time again"],
  ["d", "light, dark, or as the system"],
  ["Esc", "close what is open; else undo search, zoom, range"],
];

export function help(): HTMLDialogElement {
  const texts = document.getElementById("license-texts") as HTMLTemplateElement | null;
  const licenses = h("details", {}, h("summary", {}, "Licences of the libraries in this file"));
  if (texts !== null) licenses.append(texts.content.cloneNode(true));
  const dialog = h(
    "dialog.help",
    { "aria-label": "Help" },
    h("form.bar", { method: "dialog" }, h("h2", {}, "Keys"), h("button.icon", { "aria-label": "Close" }, "×")),
    h("dl", {}, ...KEYS.flatMap(([key, what]) => [h("dt", {}, ...key.split(/(, | )/).map((part) => (/^(, | )$/.test(part) ? part : h("kbd", {}, part)))), h("dd", {}, what)])),
    h("h2", {}, "What is what"),
    h("p", {}, "A site is a whole stack at allocation. Live means allocated since heapscope came and not freed; it need not be leaked. A block is temporary if its thread freed it before it allocated another one. In the graph a frame is as wide as what was allocated below it; frames too narrow to be seen are left out. A range of time selects the blocks that were born in it and live at the end."),
    licenses,
  );
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  return dialog;
}
