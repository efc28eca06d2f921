// Builds dist/page.html: one file without references, with the licences of what is in it. `cargo xtask assets` runs this.
//
// The policy in its head lets nothing run but this very script and this very style sheet, and nothing be fetched.

import { build } from "esbuild";
import { createHash } from "node:crypto";
import { readFileSync, readdirSync, mkdirSync, writeFileSync } from "node:fs";

const bundle = await build({
  entryPoints: ["src/main.ts"],
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome123", "firefox120", "safari17.5"],
  charset: "ascii",
  legalComments: "none",
  outdir: "out",
  write: false,
  metafile: true,
  logLevel: "warning",
});

const output = (ending) => bundle.outputFiles.find((file) => file.path.endsWith(ending)).text.trim();
// A script that holds this would end where it stands.
const script = output(".js").replaceAll("</script", "<\\/script");
const style = output(".css");
const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");

/** The packages that the bundle was made of, with their licences. */
function licenses() {
  const names = Object.keys(bundle.metafile.inputs)
    .map((path) => path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1])
    .filter((name) => name !== undefined);
  return [...new Set(names)].sort().map((name) => {
    const folder = `node_modules/${name}`;
    const { version, license } = JSON.parse(readFileSync(`${folder}/package.json`, "utf8"));
    const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
    const text = file === undefined ? `(its package names its license, ${license}, and has no text)` : readFileSync(`${folder}/${file}`, "utf8").trim();
    return `${name} ${version}: ${license}\n\n${text}\n`;
  });
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
const parts = {
  policy,
  style,
  script,
  licenses: escaped(licenses().join("\n----\n\n")),
};
const page = readFileSync("src/page.html", "utf8").replaceAll(/\{\{(\w+)\}\}/g, (_, name) => parts[name]);
mkdirSync("dist", { recursive: true });
const target = process.argv[2] ?? "dist/page.html";
writeFileSync(target, page);
console.log(`${target}: ${page.length} bytes`);
