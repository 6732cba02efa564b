// The log terminal without a page: lines, what of them is shown, and where a trace is.
// Lines are kept in a window; what a list draws is only the rows that are visible.

export const LEVELS = ["debug", "info", "warning", "error"];

/** A received event as a line. */
export function lineOf(text, id) {
  let data = null;
  try {
    data = JSON.parse(text);
  } catch {
    // A plain line.
  }
  if (data === null || typeof data !== "object") data = { message: text };
  const level = LEVELS.includes(data.level) ? data.level : "info";
  const message = String(data.message ?? text);
  const time = String(data.time ?? "").slice(11, 23);
  const service = String(data.service ?? "");
  const trace = String(data.trace ?? "");
  // What a search looks at, made once.
  const whole = `${time} ${level} ${service} ${message} ${trace}`.toLowerCase();
  return { id, level, message, time, service, trace, whole, isGap: false };
}

export class Terminal {
  /** @param {number} most lines that are kept. */
  constructor(most = 100_000) {
    this.most = most;
    this.lines = [];
    this.shown = [];
    this.received = 0;
    this.levels = new Set(LEVELS);
    this.search = "";
    this.trace = "";
    this.isPaused = false;
    this.waiting = [];
  }

  /** Takes lines. While it is paused they wait, within the same bound. */
  add(lines) {
    this.received += lines.length;
    if (this.isPaused) {
      for (const line of lines) this.waiting.push(line);
      if (this.waiting.length > this.most) this.waiting = this.waiting.slice(-this.most);
      return;
    }
    for (const line of lines) {
      this.lines.push(line);
      if (this.isShown(line)) this.shown.push(line);
    }
    // A quarter more than the bound is kept until that much is cut at once.
    if (this.lines.length > this.most * 1.25) {
      this.lines = this.lines.slice(-this.most);
      this.filter();
    }
  }

  addGap(reason, id) {
    const message = `… lines are missing (${reason}) …`;
    this.add([{ id, level: "gap", message, time: "", service: "", trace: "", whole: "", isGap: true }]);
  }

  isShown(line) {
    if (line.isGap) return true;
    if (!this.levels.has(line.level)) return false;
    if (this.trace !== "" && line.trace !== this.trace) return false;
    return this.search === "" || line.whole.includes(this.search);
  }

  /** Looks at all lines again. O(lines). */
  filter() {
    this.shown = this.lines.filter((line) => this.isShown(line));
  }

  setLevel(level, isOn) {
    if (isOn) this.levels.add(level);
    else this.levels.delete(level);
    this.filter();
  }

  setSearch(text) {
    this.search = text.trim().toLowerCase();
    this.filter();
  }

  setTrace(trace) {
    this.trace = trace.trim();
    this.filter();
  }

  pause() {
    this.isPaused = true;
  }

  /** Shows what came while it was paused. */
  resume() {
    this.isPaused = false;
    const waiting = this.waiting;
    this.waiting = [];
    this.received -= waiting.length;
    this.add(waiting);
  }

  /** The index of the first shown line of a trace; -1: none. */
  indexOfTrace(trace) {
    return this.shown.findIndex((line) => line.trace === trace);
  }
}
