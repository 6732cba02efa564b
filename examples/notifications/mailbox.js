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

  /** A mark only goes forward: an old mark that comes late changes nothing. */
  markRead(through) {
    if (isAfter(through, this.read)) this.read = through;
  }

  add(id, data) {
    this.notifications.push({ ...data, id });
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

/** What a program wrote as a JSON object; null for anything else, which is nothing to show. */
function parsed(text) {
  try {
    const value = JSON.parse(text);
    return typeof value === "object" ? value : null;
  } catch {
    return null;
  }
}

const AGAIN_MS = 1000;

/** Connects a device. `onChange(mailbox)` is called with each change. */
export async function connect(application, user, onChange, Source = globalThis.EventSource) {
  const mailbox = new Mailbox();
  let session, source, again;
  let place = "earliest";
  const begin = async () => {
    const answer = await fetch(`${application}/session?user=${encodeURIComponent(user)}`);
    session = await answer.json();
    mailbox.markRead(session.read);
  };
  const open = () => {
    source = new Source(`${session.events}&last_event_id=${place}&authorization=${session.token}`);
    const on = (type, take) =>
      source.addEventListener(type, (event) => {
        place = event.lastEventId || place;
        const data = parsed(event.data);
        if (data !== null) take(event, data);
        onChange(mailbox);
      });
    on("order", (event, order) => mailbox.add(event.lastEventId, order));
    on("read", (event, mark) => mailbox.markRead(mark.through));
    on("fastsse.gap", () => (mailbox.mayLack = true));
    // While this device was away another may have read on: the mark is asked for again.
    source.addEventListener("open", () => begin().then(() => onChange(mailbox), () => {}));
    source.addEventListener("error", () => {
      if (source.readyState === Source.CLOSED) again = setTimeout(reopen, AGAIN_MS);
    });
  };
  // A token ends, and its stream with it, for good: a page that is still open gets another.
  const reopen = () =>
    begin().then(open, () => {
      again = setTimeout(reopen, AGAIN_MS);
    });
  await begin();
  open();
  const readAll = async () => {
    const through = mailbox.newest;
    await begin(); // The token may have ended.
    const body = JSON.stringify({ token: session.token, through });
    return fetch(`${application}/read`, { method: "POST", body });
  };
  const close = () => {
    clearTimeout(again);
    source.close();
  };
  return { mailbox, readAll, close };
}
