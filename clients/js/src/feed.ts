// The server takes 100 topics in an address (`max_topics`) and 16 KiB; some proxies take less.
const TOPICS_MAX = 100;
const ADDRESS_CHARS_MAX = 4_000;

/**
 * Stores the topics of a stream at the server and names them by their feed, if they are too many or
 * too long for an address. The feed is stored at each opening, so that the server knows it.
 */
export async function shorten(url: URL, post: (path: string, body: string) => Promise<Response>): Promise<void> {
  const topics = url.searchParams.getAll("topic");
  if (!topics.length || (topics.length <= TOPICS_MAX && url.href.length <= ADDRESS_CHARS_MAX)) return;
  const answer = await post("feeds", JSON.stringify(topics));
  const { feed } = (await answer.json()) as { feed?: string };
  if (!feed) throw new Error("the answer names no feed");
  url.searchParams.delete("topic");
  url.searchParams.set("feed", feed);
}
