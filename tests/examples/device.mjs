// A device of a user, without a screen: writes what it would show, reads commands.
//   node device.mjs PATH-TO-EVENTSOURCE APPLICATION USER
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import { connect } from "../../examples/notifications/mailbox.js";

const [library, application, user] = process.argv.slice(2);
const { EventSource } = await import(pathToFileURL(library));
const show = (mailbox) =>
  console.log(
    JSON.stringify({
      orders: mailbox.notifications.map((each) => each.order),
      unread: mailbox.notifications.filter((each) => mailbox.isUnread(each)).map((each) => each.order),
      count: mailbox.unreadCount,
    }),
  );
const device = await connect(application, user, show, EventSource);
show(device.mailbox);
for await (const line of createInterface({ input: process.stdin })) {
  if (line === "read") await device.readAll();
}
device.close();
