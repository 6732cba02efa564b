// A user's mailbox: the notifications that the stream brought, and how far they are read.
// The topic's history is the store: it is read from the beginning, and then goes on live.

/** Whether a position `ms-n` lies after another. */
export function isAfter(position, other) {
  const [ms, n] = position.split("-").map(BigInt);
  const [otherMs, otherN] = other.split("-").map(BigInt);
  return ms > otherMs || (ms === otherMs && n > otherN);
}

export class Mailbox {
  constructor() {
    this.notifications = [];
    this.read = "0-0";
  }

  /** A mark only goes forward: whoever comes late with an old one changes nothing. */
  markRead(through) {
    if (isAfter(through, this.read)) this.read = through;
  }

  add(id, data) {
    this.notifications.push({ id, ...data });
  }

  isUnread(notification) {
    return isAfter(notification.id, this.read);
  }

  get unreadCount() {
    return this.notifications.filter((each) => this.isUnread(each)).length;
  }

  get newest() {
    return this.notifications.at(-1)?.id ?? "0-0";
  }
}

/** Connects a device. `onChange(mailbox)` is called with each change. */
export async function connect(application, user, onChange, Source = globalThis.EventSource) {
  const mailbox = new Mailbox();
  const begin = async () => {
    const answer = await fetch(`${application}/session?user=${encodeURIComponent(user)}`);
    const session = await answer.json();
    mailbox.markRead(session.read);
    return session;
  };
  const { events, token } = await begin();
  const source = new Source(`${events}&last_event_id=earliest&authorization=${token}`);
  const on = (type, take) =>
    source.addEventListener(type, (event) => {
      take(event);
      onChange(mailbox);
    });
  on("order", (event) => mailbox.add(event.lastEventId, JSON.parse(event.data)));
  on("read", (event) => mailbox.markRead(JSON.parse(event.data).through));
  on("fastsse.gap", () => (mailbox.mayLack = true));
  // While this device was away another may have read on: the mark is asked for again.
  source.addEventListener("open", () => begin().then(() => onChange(mailbox), () => {}));
  const readAll = () =>
    fetch(`${application}/read`, {
      method: "POST",
      body: JSON.stringify({ token, through: mailbox.newest }),
    });
  return { mailbox, readAll, close: () => source.close() };
}
