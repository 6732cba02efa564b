import { open } from "./mailbox.js";

const element = (id) => document.getElementById(id);
const user = new URLSearchParams(location.search).get("user") ?? "alice";
element("user").textContent = user;

function show(notifications, unread, mayLack) {
  element("count").textContent = `${unread.length} unread`;
  element("gap").hidden = !mayLack;
  const items = notifications.toReversed().map((each) => {
    const item = document.createElement("li");
    item.className = unread.includes(each) ? "unread" : "";
    item.textContent = `Order ${each.order}: ${each.state}`;
    return item;
  });
  element("list").replaceChildren(...items);
}

const { events } = await (await fetch(`/session?user=${user}`)).json();
const { connect } = await import(`${events}/client.js`);
element("read").onclick = await open(connect, "", user, show);
