import { connect, hubUrl } from "./hub.js";

const board = document.getElementById("board");
const cells = new Map();
const changed = new Map();

// The price of each symbol as it is now, then at most five changes a second of each.
connect(hubUrl).subscribe("prices/{symbol}", {
  lastEach: 1,
  maxRate: 5,
  onEvent(event) {
    if (!changed.size) requestAnimationFrame(draw);
    changed.set(event.topic, event.data);
  },
  onState: (state) => (document.getElementById("state").textContent = state),
});

/** Draws each changed symbol once a frame. */
function draw() {
  for (const [topic, { price, change }] of changed) {
    const cell = cells.get(topic) ?? added(topic);
    cell.textContent = `${topic.slice("prices/".length)} ${price.toFixed(2)}`;
    cell.className = change < 0 ? "down" : change > 0 ? "up" : "";
  }
  changed.clear();
}

function added(topic) {
  const cell = document.createElement("div");
  cells.set(topic, cell);
  const after = [...cells.keys()].sort();
  board.insertBefore(cell, board.children[after.indexOf(topic)] ?? null);
  return cell;
}
