// Workers of this node, and the sources of all nodes.
import {age, ask, attempt, byId, number, row, size} from "./page.js";

export function open() {
  attempt(async () => {
    const {processes} = await ask("/stats");
    byId("workers").replaceChildren(...processes.map((one) => row([
      ["", one.worker + " (" + one.pid + ")"], ["", one.state], ["number", number(one.connections)],
      ["number", number(one.room)], ["number", one.cpu_s.toFixed(1)], ["number", size(one.resident_bytes)],
      ["", age(one.uptime_s)],
    ])));
    const {sources} = await ask("/admin/sources");
    byId("sources-note").textContent = sources.length ? "" : "No sources are configured.";
    byId("sources").replaceChildren(...sources.map((one) => row([
      ["", one.name], ["", one.system], [one.state === "away" ? "wrong" : "", one.state],
      ["", age(one.lag_ms / 1000)], ["number", one.backlog === null ? "" : number(one.backlog)], ["", one.trouble],
    ])));
  });
}

export function close() {}
