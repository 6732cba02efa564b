// A device of a user, without a screen: writes what it would show, reads commands.
//   node device.mjs PATH-TO-CLIENT APPLICATION USER
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { open } from "../../examples/notifications/page/mailbox.js";

const [library, application, user] = process.argv.slice(2);
const { connect } = await import(pathToFileURL(library));
const show = (notifications, unread) => {
  const [orders, news] = [notifications, unread].map((list) => list.map((each) => each.order));
  console.log(JSON.stringify({ orders, unread: news, count: news.length }));
};
const readAll = await open(connect, application, user, show);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "read") await readAll();
}
process.exit();
