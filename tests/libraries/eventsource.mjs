// Prints each event that the npm package `eventsource` dispatches, one JSON line each.
// Arguments: the package's entry, the URL, and the data after which to stop.
const [entry, url, last] = process.argv.slice(2);
const { EventSource } = await import(entry);
const stream = new EventSource(url);
const show = (event) => {
  console.log(JSON.stringify({ type: event.type, data: event.data, id: event.lastEventId }));
  if (event.data === last) {
    stream.close();
  }
};
stream.addEventListener("message", show);
stream.addEventListener("tick", show);
stream.addEventListener("fastsse.gap", show);
stream.addEventListener("open", () => console.error("open"));
