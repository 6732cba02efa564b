// Builds the package into a folder, and the copy that the server sends.
//
//   node build.mjs [--out dist] [--served ../../fastsse/api/client] [--types]
//
// esbuild and tsc come from node_modules next to this file, or from FASTSSE_NODE_MODULES.
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const modules = process.env.FASTSSE_NODE_MODULES ?? join(here, "node_modules");
const required = createRequire(join(modules, "_.js"));
const esbuild = required("esbuild");
const { values } = parseArgs({
  options: { out: { type: "string" }, served: { type: "string" }, types: { type: "boolean" } },
});

// Entry points; the others import the core as a file next to them, so that a page loads it once.
const ENTRIES = ["index", "parser", "poll", "websocket", "feed", "tabs", "worker", "outbox", "element", "react"];
// React is the application's, so its hook is of the package alone.
const SERVED = ENTRIES.filter((name) => name !== "react" && name !== "parser");
// Members that only the core itself uses; their names are shortened where size counts.
const INTERNAL = [
  ...["isLive", "held", "wants", "asks", "become", "members", "isRunning", "settings", "instead"],
  ...["requestOf", "refresh", "renew", "allowed", "emptied", "restart", "isRenewable", "expire"],
  ...["alive", "fault", "place", "wake", "choose", "mark", "failed"],
  ...["behind", "callBack", "ask", "view", "current", "fail"],
];

// The code uses no getter with an effect, and no symbol as a text.
const COMPRESSION = { passes: 4, unsafe: true, unsafe_arrows: true, unsafe_methods: true, pure_getters: true };

const neighbours = (isServed) => ({
  name: "neighbours",
  setup(build) {
    build.onResolve({ filter: /^\.\/(index|poll|websocket|feed)\.js$/ }, ({ path, kind }) => {
      // The server sends the core as `/client.js` too. Below each of its names is a `client/`.
      const isLoaded = isServed && kind === "dynamic-import";
      return { path: isLoaded ? path.replace("./", "./client/") : path, external: true };
    });
  },
});

async function bundle(names, folder, minify) {
  const known = new Set(readdirSync(join(here, "src")));
  await esbuild.build({
    absWorkingDir: here,
    entryPoints: names.filter((name) => known.has(`${name}.ts`) || known.has(`${name}.tsx`)).map((name) => `src/${name}.ts`),
    outdir: resolve(folder),
    bundle: true,
    minify,
    ...(minify && { mangleProps: new RegExp(`^(${INTERNAL.join("|")})$`) }),
    format: "esm",
    target: "es2022",
    charset: "utf8",
    external: ["react"],
    plugins: [neighbours(minify)],
    legalComments: "none",
    logLevel: "warning",
  });
  if (minify) for (const name of readdirSync(folder)) await shrink(join(folder, name));
}

/** esbuild shortens names of members, terser shortens the rest further. */
async function shrink(path) {
  const { minify } = required("terser");
  const options = { module: true, ecma: 2020, compress: COMPRESSION, format: { ecma: 2020 } };
  writeFileSync(path, (await minify(readFileSync(path, "utf8"), options)).code);
}

if (values.out) await bundle(ENTRIES, values.out, false);
if (values.served) await bundle(SERVED, values.served, true);
if (values.types) {
  const tsc = join(modules, "typescript/bin/tsc");
  const words = ["-p", here, "--outDir", resolve(values.out ?? join(here, "dist"))];
  execFileSync(process.execPath, [tsc, ...words], { stdio: "inherit" });
}
