import { connect, type Hub, type HubEvent, type SubscribeOptions, type Subscription } from "./index.js";

const hubs = new Map<string, Hub>();
const NUMBERS = { last: "last", "last-each": "lastEach", "max-rate": "maxRate" } as const;
const TEXTS = { since: "since", filter: "filter", event: "event", until: "until" } as const;

/**
 * `<fastsse-events topic="news" last="5" limit="20"><template><li data-text="data.title"></li></template></fastsse-events>`
 *
 * Elements of one `src` share a connection. Each event is dispatched as a `fastsse` event, whose
 * `detail` is the envelope. With a `<template>` each event is drawn: `data-text="data.title"` becomes
 * the text of its element, never markup. `limit` bounds how many are kept, `prepend` puts the newest
 * first, and `key="data.id"` replaces what was drawn for an equal value. The attribute `state` says
 * how the stream is, for styles.
 */
export class FastsseEvents extends HTMLElement {
  static observedAttributes = ["src", "topic", ...Object.keys({ ...NUMBERS, ...TEXTS })];
  /** A hub of the application's, with a token. Set it before the element is connected. */
  hub: Hub | undefined;
  #subscription: Subscription | undefined;
  #isPlanned = false;

  connectedCallback(): void {
    this.#plan();
  }

  disconnectedCallback(): void {
    this.#subscription?.unsubscribe();
    this.#subscription = undefined;
  }

  attributeChangedCallback(): void {
    if (this.isConnected) this.#plan();
  }

  /** Several attributes change at once. */
  #plan(): void {
    if (this.#isPlanned) return;
    this.#isPlanned = true;
    queueMicrotask(() => {
      this.#isPlanned = false;
      this.disconnectedCallback();
      if (this.isConnected && this.getAttribute("topic")) this.#open();
    });
  }

  #open(): void {
    const options: Record<string, unknown> = {};
    for (const [name, key] of Object.entries(TEXTS)) options[key] = this.getAttribute(name) ?? undefined;
    for (const [name, key] of Object.entries(NUMBERS)) {
      if (this.hasAttribute(name)) options[key] = Number(this.getAttribute(name));
    }
    const hub = this.hub ?? hubOf(this.getAttribute("src") ?? "/");
    this.#subscription = hub.subscribe(this.getAttribute("topic") ?? "", {
      ...(options as Partial<SubscribeOptions>),
      onEvent: (event) => this.#take(event),
      onGap: (gap) => this.#send("fastsse-gap", gap),
      onError: (error) => this.#send("fastsse-error", error),
      onState: (state) => this.setAttribute("state", state),
    });
  }

  #take(event: HubEvent): void {
    const template = this.querySelector<HTMLTemplateElement>(":scope > template");
    if (this.#send("fastsse", event) && template) this.#draw(event, template);
  }

  #send(type: string, detail: unknown): boolean {
    return this.dispatchEvent(new CustomEvent(type, { detail, bubbles: true, cancelable: true }));
  }

  #draw(event: HubEvent, template: HTMLTemplateElement): void {
    const copy = template.content.cloneNode(true) as DocumentFragment;
    for (const element of copy.querySelectorAll<HTMLElement>("[data-text]")) {
      element.textContent = textOf(event, element.dataset.text ?? "");
    }
    const first = copy.firstElementChild as HTMLElement | null;
    if (!first) return;
    const key = this.getAttribute("key");
    if (key) first.dataset.key = textOf(event, key);
    const drawn = [...this.children].filter((element) => element !== template) as HTMLElement[];
    const old = key ? drawn.find((element) => element.dataset.key === first.dataset.key) : undefined;
    if (old) return old.replaceWith(first);
    const isPrepended = this.hasAttribute("prepend");
    if (isPrepended) template.after(first);
    else this.append(first);
    const limit = Number(this.getAttribute("limit") ?? 100);
    if (drawn.length >= limit) drawn[isPrepended ? drawn.length - 1 : 0]?.remove();
  }
}

function hubOf(src: string): Hub {
  let hub = hubs.get(src);
  if (!hub) hubs.set(src, (hub = connect(src)));
  return hub;
}

/** The value of a path such as `data.user.name`, as text. */
function textOf(event: unknown, path: string): string {
  let value = event;
  for (const name of path.split(".")) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return "";
    value = (value as Record<string, unknown>)[name];
  }
  return typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
}

if (!customElements.get("fastsse-events")) customElements.define("fastsse-events", FastsseEvents);
