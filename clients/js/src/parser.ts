/** Takes what the parser finds. `data` is null for a block without data, which only names a place. */
export type OnBlock = (type: string, data: string | null, id: string) => void;

const LF = 10;
const D = 100;
const E = 101;
const I = 105;

/**
 * Makes a parser of `text/event-stream` (WHATWG HTML §9.2.6): a function that takes the stream
 * piece by piece, decoded by a TextDecoder, which removes the byte order mark.
 *
 * A piece is searched for line ends once, so a line of many pieces costs O(its length).
 *
 * @param onBlock called at each blank line
 * @param onRetry called with the milliseconds of each `retry:` line
 * @param maxChars the most characters of one event; above it the function throws a RangeError
 */
export function createParser(
  onBlock: OnBlock,
  onRetry: (ms: number) => void = () => {},
  maxChars = Infinity,
): (text: string) => void {
  let lastId = "";
  let type = "";
  let data: string | null = null;
  let rest = "";
  let endedByCr = false;

  function feed(text: string): void {
    if (endedByCr || text.includes("\r")) text = withoutCr(text);
    let at = 0;
    if (rest) {
      at = text.indexOf("\n") + 1;
      if (at) lines(rest + text.slice(0, at), 0);
      else rest += text;
    }
    if (!rest) lines(text, at);
    if (rest.length + (data?.length ?? 0) > maxChars) {
      throw new RangeError(`an event above ${maxChars}`);
    }
  }

  function lines(text: string, at: number): void {
    for (let end; (end = text.indexOf("\n", at)) >= 0; at = end + 1) {
      const first = text.charCodeAt(at);
      if (first === D && text.startsWith("data: ", at)) {
        const value = text.slice(at + 6, end);
        // Most events have one line of data, with the blank line behind it.
        if (data === null && text.charCodeAt(end + 1) === LF) {
          send(value);
          end++;
        } else add(value);
      } else if (first === I && text.startsWith("id: ", at)) setId(text.slice(at + 4, end));
      else if (first === E && text.startsWith("event: ", at)) type = text.slice(at + 7, end);
      else line(text, at, end);
    }
    rest = text.slice(at);
  }

  /** The text with LF for every line end; a CR at the end of a piece may be half of a CRLF. */
  function withoutCr(text: string): string {
    if (!text) return text;
    if (endedByCr && text.charCodeAt(0) === LF) text = text.slice(1);
    endedByCr = text.endsWith("\r");
    return text.replace(/\r\n?/g, "\n");
  }

  function line(text: string, from: number, end: number): void {
    if (from === end) return send(data);
    const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(text.slice(from, end))!;
    if (name === "data") add(value);
    else if (name === "event") type = value;
    else if (name === "id") setId(value);
    else if (name === "retry" && /^\d+$/.test(value)) onRetry(Number(value));
  }

  function add(value: string): void {
    data = data === null ? value : `${data}\n${value}`;
  }

  function setId(value: string): void {
    if (!value.includes("\0")) lastId = value;
  }

  /** The state is reset first: a callback that throws leaves a parser that can go on. */
  function send(text: string | null): void {
    const sent = type || "message";
    type = "";
    data = null;
    onBlock(sent, text, lastId);
  }

  return feed;
}
