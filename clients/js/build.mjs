// Builds the package into a folder, and the copy that the server sends.
//
//   node build.mjs [--out dist] [--served ../../fastsse/api/client] [--types]
//
// esbuild and tsc come from node_modules next to this file, or from FASTSSE_NODE_MODULES.
import { execFileSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const here = dirname(fileURLToPath(import.meta.url));
const modules = process.env.FASTSSE_NODE_MODULES ?? join(here, "node_modules");
const esbuild = createRequire(join(modules, "_.js"))("esbuild");
const { values } = parseArgs({
  options: { out: { type: "string" }, served: { type: "string" }, types: { type: "boolean" } },
});

// Entry points; the others import the core as a file next to them, so that a page loads it once.
const ENTRIES = ["index", "parser", "poll", "tabs", "worker", "outbox", "element", "react"];
// React is the application's, so its hook is of the package alone.
const SERVED = ENTRIES.filter((name) => name !== "react" && name !== "parser");
// Members that only the core itself uses; their names are shortened where size counts.
const INTERNAL = [
  ...["isLive", "held", "wants", "asks", "become", "members", "isRunning", "settings", "fallBack"],
  ...["requestOf", "refresh", "renew", "allowed", "ended", "restart", "isRenewable", "expire"],
  ...["alive", "fault", "place", "wake"],
];

const core = {
  name: "core",
  setup(build) {
    build.onResolve({ filter: /^\.\/index\.js$/ }, () => ({ path: "./index.js", external: true }));
  },
};

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
    plugins: [core],
    legalComments: "none",
    logLevel: "warning",
  });
}

if (values.out) await bundle(ENTRIES, values.out, false);
if (values.served) await bundle(SERVED, values.served, true);
if (values.types) {
  const tsc = join(modules, "typescript/bin/tsc");
  const words = ["-p", here, "--outDir", resolve(values.out ?? join(here, "dist"))];
  execFileSync(process.execPath, [tsc, ...words], { stdio: "inherit" });
}
