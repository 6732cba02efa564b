import { connect, hubUrl } from "./hub.js";

const LINES_MAX = 500;
const hub = connect(hubUrl);
const lines = document.getElementById("lines");
const level = document.getElementById("level");
let subscription;

function follow() {
  subscription?.unsubscribe();
  lines.replaceChildren();
  // The server leaves out what is below the level: it is not sent.
  subscription = hub.subscribe("logs/{service}", {
    last: 200,
    filter: `data.level >= ${Number(level.value)}`,
    onEvent: ({ topic, time, data }) => write(`${stamp(time)} ${topic} ${data.name} ${data.text}`, data.name),
    onGap: () => write("… older lines are not kept any more …", "debug"),
    onState: (state) => (document.getElementById("state").textContent = state),
  });
}

/** Adds a line, and scrolls if the end is in sight. */
function write(text, kind) {
  const isAtEnd = lines.scrollTop + lines.clientHeight > lines.scrollHeight - 30;
  const line = document.createElement("div");
  line.textContent = text;
  line.className = kind;
  lines.append(line);
  if (lines.childElementCount > LINES_MAX) lines.firstElementChild.remove();
  if (isAtEnd) lines.scrollTop = lines.scrollHeight;
}

const stamp = (time) => new Date(time).toISOString().slice(11, 23);

level.onchange = follow;
follow();
