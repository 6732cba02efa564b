// The topic's history is the mailbox: it is read from the beginning, and then goes on live.

/** Whether a position `ms-n` lies after another. */
function isAfter(position, other) {
  const [[ms, n], [otherMs, otherN]] = [position, other].map((each) => each.split("-").map(BigInt));
  return ms > otherMs || (ms === otherMs && n > otherN);
}

/** Connects a device with the client's `connect`. `onChange(notifications, unread, mayLack)` is called
 *  with each change. Returns what marks all as read. */
export async function open(connect, application, user, onChange) {
  const notifications = [];
  let mark = "0-0", mayLack = false;
  const change = (through) => {
    if (isAfter(through, mark)) mark = through; // It only goes forward: an old mark may come late.
    onChange(notifications, notifications.filter((each) => isAfter(each.id, mark)), mayLack);
  };
  // While this device was away another may have read on: the mark comes with each token.
  const begin = async () => {
    const session = await (await fetch(`${application}/session?user=${user}`)).json();
    change(session.read);
    return session;
  };
  const hub = connect((await begin()).events, { token: async () => (await begin()).token });
  hub.subscribe(`users/${user}`, {
    lastEventId: "earliest",
    onEvent({ event, id, data }) {
      if (event === "order") notifications.push({ ...data, id });
      change(event === "read" ? data.through : mark);
    },
    onGap() {
      mayLack = true;
      begin();
    },
  });
  return async () => {
    const through = notifications.at(-1)?.id ?? "0-0";
    const body = JSON.stringify({ token: (await begin()).token, through });
    await fetch(`${application}/read`, { method: "POST", headers: { "Content-Type": "application/json" }, body });
  };
}
