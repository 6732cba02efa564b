import { connect, hubUrl } from "./hub.js";

const OLD_MS = 5_000;
const HOT = 69;
const table = document.getElementById("devices");
const rows = new Map();

// Every device's newest readings, then two of each metric a second.
connect(hubUrl).subscribe("devices/{device}/{metric}", {
  lastEach: 1,
  maxRate: 2,
  onEvent({ data: { device, metric, value } }) {
    const row = rows.get(device) ?? added(device);
    row.cells[metric === "temperature" ? 1 : 2].textContent = value.toFixed(2);
    if (metric === "temperature") row.classList.toggle("hot", value > HOT);
    row.classList.remove("old");
    row.seenAt = Date.now();
  },
  onState: (state) => (document.getElementById("state").textContent = state),
});

function added(device) {
  const row = table.insertRow();
  row.innerHTML = "<th></th><td></td><td></td>"; // Constant: names and values are set as text.
  row.cells[0].textContent = device;
  rows.set(device, row);
  return row;
}

setInterval(() => {
  for (const row of rows.values()) row.classList.toggle("old", Date.now() - row.seenAt > OLD_MS);
}, 1_000);
