// The SharedWorker of `connectTabs`: one host for each server and its options.
import { TabsHost, type FromTab, type Greeting } from "./tabs-host.js";

const scope = globalThis as unknown as { onconnect: (event: MessageEvent) => void };
const hosts = new Map<string, { host: TabsHost; ports: Map<string, MessagePort> }>();

// A worker has no storage of its own: its tabs keep for it which transports work.
const kept = new Map<string, string>();
Object.assign(globalThis, {
  sessionStorage: {
    getItem: (name: string) => kept.get(name) ?? null,
    setItem(name: string, value: string) {
      kept.set(name, value);
      for (const { ports } of hosts.values()) for (const port of ports.values()) port.postMessage({ on: "keep", name, value });
    },
  },
});

function hostOf({ url, options, hasToken, lock, memory }: Greeting) {
  const key = JSON.stringify([url, options, hasToken]);
  let found = hosts.get(key);
  if (!found) {
    for (const [name, value] of memory) if (!kept.has(name)) kept.set(name, value);
    const ports = new Map<string, MessagePort>();
    const host = new TabsHost(url, options, hasToken, (message) => ports.get(message.tab)?.postMessage(message));
    hosts.set(key, (found = { host, ports }));
    // Held while the worker lives: it is granted to a tab when the browser has ended the worker.
    void navigator.locks.request(lock, () => new Promise(() => {}));
  }
  return found;
}

scope.onconnect = ({ ports: [port] }) => {
  if (!port) return;
  let found: ReturnType<typeof hostOf> | undefined;
  port.onmessage = ({ data }: MessageEvent<Greeting | FromTab>) => {
    if (data.do === "connect") {
      found = hostOf(data);
      for (const [name, value] of kept) port.postMessage({ on: "keep", name, value });
    }
    else if (found) {
      found.ports.set(data.tab, port);
      found.host.take(data);
      if (data.do === "leave") found.ports.delete(data.tab);
    }
  };
};
