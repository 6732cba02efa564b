// The SharedWorker of `connectTabs`: one host for each server and its options.
import type { ConnectOptions } from "./index.js";
import { TabsHost, type FromTab } from "./tabs-host.js";

type Greeting = { do: "connect"; url: string; options: ConnectOptions; hasToken: boolean; lock: string };

const scope = globalThis as unknown as { onconnect: (event: MessageEvent) => void };
const hosts = new Map<string, { host: TabsHost; ports: Map<string, MessagePort> }>();

function hostOf({ url, options, hasToken, lock }: Greeting) {
  const key = JSON.stringify([url, options, hasToken]);
  let found = hosts.get(key);
  if (!found) {
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
    if (data.do === "connect") found = hostOf(data);
    else if (found) {
      found.ports.set(data.tab, port);
      found.host.take(data);
      if (data.do === "leave") found.ports.delete(data.tab);
    }
  };
};
